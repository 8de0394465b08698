"""The table of studies: settings that exist, values they take, and where the paper works."""

from __future__ import annotations

from typing import Any

import pytest

from experiments.studies.grid import make_grid, parse_values
from experiments.studies.table import STUDIES, Study, check_switches, find
from hil.cli.settings import load_settings
from hil.config import rows
from hil.errors import ConfigError
from sim_backend.forming import FormingStatistics
from sim_backend.settings import SimSettings

NMNIST = [study for study in STUDIES if "nmnist" in study.experiments]


def configured(overrides: list[str]) -> Any:
    return load_settings(None, overrides)


@pytest.mark.parametrize("study", NMNIST, ids=lambda study: study.name)
class TestEachStudy:
    def test_a_value_reaches_its_settings(self, study: Study) -> None:
        for value in study.values:
            found = {row.key: row.value for row in rows(configured(study.overrides(value)))}
            for key, factor in study.keys.items():
                assert found[key] == pytest.approx(value * factor)

    def test_the_paper_is_on_the_grid_and_is_the_default(self, study: Study) -> None:
        assert study.paper in study.values
        at_paper, default = configured(study.overrides(study.paper)), configured([])
        changed = {a.key for a, b in zip(rows(at_paper), rows(default), strict=True) if a.value != b.value}
        assert changed <= set(study.fixed)

    def test_default_settings_show_the_effect(self, study: Study) -> None:
        check_switches(study, configured([]), [])


def test_the_studies_of_the_paper_are_there() -> None:
    names = {"read-noise", "input-noise", "hidden-size", "input-size", "conductance-spread", "stuck-cells"}
    assert {study.name for study in NMNIST} == names


def test_a_custom_spread_of_the_paper_is_the_paper() -> None:
    study = find("conductance-spread", "nmnist")
    custom = configured(study.overrides(study.paper)).sim.forming
    assert FormingStatistics.from_settings(custom) == FormingStatistics.from_settings(SimSettings().forming)


def test_stuck_cells_are_half_on_and_half_off() -> None:
    faults = configured(find("stuck-cells", "nmnist").overrides(0.1)).sim.faults
    assert (faults.stuck_on, faults.stuck_off) == (0.05, 0.05)


def test_values_are_shown_with_their_unit() -> None:
    assert find("conductance-spread", "nmnist").shown(6.61e-6) == "6.61 µS"
    assert find("hidden-size", "nmnist").shown(200) == "200"
    assert find("read-noise", "nmnist").label == "read noise of a cell, relative (%)"


@pytest.mark.parametrize(
    ("name", "experiment", "words"),
    [
        ("read_noise", "nmnist", "unknown study 'read_noise'.*choose one of: read-noise"),
        ("read-noise", "atv", "unknown experiment 'atv'.*nmnist"),
    ],
)
def test_unknown_names_are_refused(name: str, experiment: str, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        find(name, experiment)


def test_a_study_that_an_experiment_lacks_says_which_has_it(monkeypatch: pytest.MonkeyPatch) -> None:
    only = [study for study in STUDIES if study.experiments == ("nmnist",)][:1]
    monkeypatch.setattr("experiments.studies.table.STUDIES", tuple(only))
    with pytest.raises(ConfigError, match="--experiment nmnist"):
        find(only[0].name, "ntidigits")


@pytest.mark.parametrize(
    ("override", "name", "words"),
    [
        ("sim.ideal=true", "read-noise", "sim.ideal = true switches off.*sim.ideal=false"),
        ("sim.noise.enabled=false", "read-noise", "sim.noise.enabled = false.*sim.noise.enabled=true"),
        ("sim.noise.enabled=false", "conductance-spread", "sim.noise.enabled = false"),
        ("sim.faults.enabled=false", "stuck-cells", "sim.faults.enabled = false"),
        ("lsm.n_neurons=50", "hidden-size", "sets lsm.n_neurons itself.*--values"),
        (" sim.forming.preset = custom", "conductance-spread", "sets sim.forming.preset itself"),
    ],
)
def test_a_study_that_would_show_nothing_is_refused(override: str, name: str, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        check_switches(find(name, "nmnist"), configured([override]), [override])


@pytest.mark.parametrize("text", ["0,0.1,0.05", " 0.1, 0 ,0.05"])
def test_values_are_sorted(text: str) -> None:
    assert parse_values(text) == (0.0, 0.05, 0.1)


@pytest.mark.parametrize(("text", "words"), [("0,x", "'x'"), ("0,,1", "''"), ("", "''"), ("1,0,1.0", "twice")])
def test_values_that_are_none_are_refused(text: str, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        parse_values(text)


def test_the_grid_has_every_value_with_every_seed() -> None:
    study = find("hidden-size", "nmnist")
    points = make_grid(study, (25, 50), 3, lambda texts: load_settings(None, ["data.n_train=500", *texts]))
    assert [(point.value, point.seed) for point in points] == [(v, s) for s in range(3) for v in (25, 50)]
    assert {(point.settings.lsm.n_neurons, point.settings.data.n_train) for point in points} == {(25, 500), (50, 500)}


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [("hidden-size", 12.5, "lsm.n_neurons"), ("read-noise", 5.0, "sim.noise.relative"), ("input-size", 17, "input_px")],
)
def test_values_that_a_setting_refuses_are_refused(name: str, value: float, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        make_grid(find(name, "nmnist"), (value,), 1, configured)


def test_no_seed_is_refused() -> None:
    with pytest.raises(ConfigError, match="--seeds 0"):
        make_grid(find("read-noise", "nmnist"), (0.0,), 0, configured)
