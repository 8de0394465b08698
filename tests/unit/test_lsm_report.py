"""The report over many runs: what is averaged, what stands beside what, what is left out, and that it is harmless."""

from __future__ import annotations

import json
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import typer
from click.testing import Result
from typer.testing import CliRunner

from experiments.accounts import TechnologySettings
from experiments.lsm_report import LsmReport, build, write_report
from experiments.lsm_report.figures import draw
from experiments.lsm_report.table import Column, Table, duration, energy
from hil.cli.report import report as report_command
from hil.errors import ConfigError, DataError
from hil.runfile import RunFile

EVIL = '<script>alert("x")</script>'
PNG = b"\x89PNG\r\n\x1a\n picture"


class Page(HTMLParser):
    """Tags and text of a page; fails where an element is not closed."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self._open: list[str] = []
        self.feed(path.read_text(encoding="utf-8"))
        self.close()
        assert self._open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in ("meta", "img", "br"):
            self._open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())

    def sources(self) -> list[str]:
        return [str(attributes["src"]) for tag, attributes in self.tags if tag == "img"]


def data(name: str = "mnist-saccade", *, synthetic: bool = True) -> dict[str, Any]:
    return {
        "dataset": name, "data_source": f"source of {name}", "data_synthetic": synthetic, "data_note": "",
        "n_train": 600, "n_test": 100,
    }  # fmt: skip


def supervised(honest: float, **more: Any) -> dict[str, Any]:
    return {
        "model": "lsm", **data(), "honest_accuracy": honest, "accuracy_interval": [honest - 0.05, honest + 0.04],
        "paper_accuracy": honest + 0.01, "paper_accuracy_interval": [honest - 0.04, honest + 0.05],
        "spike_rate_per_step": 0.09, **more,
    }  # fmt: skip


def zero_shot(unseen: float, *, best: float = 0.9, seen: float = 0.7, **more: Any) -> dict[str, Any]:
    def judged(accuracy: float) -> dict[str, Any]:
        right = round(100 * accuracy)
        return {
            "accuracy": accuracy,
            "interval": [accuracy - 0.1, accuracy + 0.1],
            "reverse_accuracy": accuracy / 2,
            "confusion": [[right, 100 - right], [100 - right, right]],
        }

    side = {"n_neurons": 200}
    return {
        "model": "lsm",
        "query": {**data("spoken-digits", synthetic=False), **side, "n_inputs": 64, "n_steps": 129},
        "gallery": {**data(), **side, "n_inputs": 256, "n_steps": 50},
        "seen_classes": [1, 2, 3], "unseen_classes": [8, 9], "n_test_unseen": 200, "projection_outputs": 64,
        "honest": {"seen": judged(seen), "unseen": judged(unseen)},
        "paper": {"seen": judged(seen), "unseen": judged(best), "gates_passed": best > 0.85, "reached": best >= 0.875},
        "shots": {"0": judged(unseen), "5": judged(0.8)},
        "chance": {"seen": 1 / 3, "unseen": 0.5},
        "spike_rate": {"audio": 0.08, "image": 0.27},
        **more,
    }  # fmt: skip


def arrays(n_inputs: int = 256, n_steps: int = 50, n_classes: int = 10) -> dict[str, Any]:
    inputs = np.zeros((2, n_steps, n_inputs), np.bool_)
    inputs[:, ::2] = True
    return {
        "trace_inputs": inputs, "confusion_matrix": np.zeros((n_classes, n_classes), np.int64),
        "tile_rows": np.arange(n_inputs + 200),
    }  # fmt: skip


def run_file(
    folder: Path,
    summary: dict[str, Any] | None,
    *,
    experiment: str = "lsm-nmnist",
    seed: int = 0,
    status: str = "complete",
    config: dict[str, Any] | None = None,
    backend: dict[str, Any] | None = None,
    calibration: str | None = None,
    **results: Any,
) -> Path:
    run = RunFile.create(
        folder,
        experiment,
        config={"lsm": {"n_neurons": 200}, **(config or {})},
        backend=backend or {"name": "sim", "kind": "sim", "seed": seed},
        calibration=calibration,
        seed=seed,
        software={"crossbar-hil": "1.2.3"},
        tables=[],
    )
    if status == "complete":
        run.finish("complete", {**({} if summary is None else {"summary": summary}), **results})
    else:
        run.finish(status, cause="DeviceError: gone")  # type: ignore[arg-type]
    return run.path


def rows(report: LsmReport, name: str) -> list[dict[str, Any]]:
    return json.loads(json.dumps(report.as_json()))["tables"][name]


class TestAccuracy:
    def test_runs_are_averaged_over_seeds_with_students_t(self, tmp_path: Path) -> None:
        for seed, accuracy in enumerate((0.88, 0.90, 0.89)):
            run_file(tmp_path, supervised(accuracy), seed=seed, backend={"name": "board", "serial": "A1"})
        (row,) = rows(build([tmp_path]), "supervised_honest")
        half = 4.302653 * 0.01 / np.sqrt(3)
        assert row["accuracy"]["mean"] == pytest.approx(0.89)
        assert row["accuracy"]["interval"] == pytest.approx([0.89 - half, 0.89 + half], abs=1e-6)
        assert (row["accuracy"]["interval_of"], row["n_seeds"], row["seeds"]) == ("seeds", 3, [0, 1, 2])

    def test_a_single_seed_has_the_interval_of_its_test_samples(self, tmp_path: Path) -> None:
        run_file(tmp_path, supervised(0.9))
        (row,) = rows(build([tmp_path]), "supervised_honest")
        assert row["accuracy"]["interval"] == [pytest.approx(0.85), pytest.approx(0.94)]
        assert row["accuracy"]["interval_of"] == "test samples"

    def test_the_protocols_have_tables_of_their_own(self, tmp_path: Path) -> None:
        run_file(tmp_path, supervised(0.9))
        report = build([tmp_path])
        (honest,), (paper,) = rows(report, "supervised_honest"), rows(report, "supervised_paper")
        assert (honest["accuracy"]["mean"], paper["accuracy"]["mean"]) == (0.9, pytest.approx(0.91))

    def test_a_difference_is_given_on_the_papers_data_only(self, tmp_path: Path) -> None:
        run_file(tmp_path, supervised(0.9))
        run_file(tmp_path, supervised(0.9, **data("nmnist", synthetic=False)))
        by_data = {row["data"]: row for row in rows(build([tmp_path]), "supervised_paper")}
        assert by_data["mnist-saccade (synthetic)"]["difference"] is None
        assert by_data["nmnist"]["difference"] == pytest.approx(0.91 - 0.8966)
        assert by_data["nmnist"]["published"] == {"chip": 0.8966, "software": 0.8911}

    def test_models_data_sizes_and_arrays_are_not_mixed(self, tmp_path: Path) -> None:
        host = {"name": "none", "kind": "none"}
        run_file(tmp_path, supervised(0.90))
        run_file(tmp_path, supervised(0.91, model="rnn"), backend=host)
        run_file(tmp_path, supervised(0.92, n_test=50), seed=1)
        run_file(tmp_path, supervised(0.93, **data("digits-saccade")), seed=1)
        run_file(tmp_path, supervised(0.94), seed=1, backend={"name": "tcp://x", "kind": "emulator"})
        found = rows(build([tmp_path]), "supervised_honest")
        assert sorted(row["accuracy"]["mean"] for row in found) == [0.90, 0.91, 0.92, 0.93, 0.94]

    def test_a_run_without_a_model_is_one_of_the_lsm(self, tmp_path: Path) -> None:
        old = supervised(0.9)
        del old["model"]
        run_file(tmp_path, old)
        (row,) = rows(build([tmp_path]), "supervised_honest")
        assert row["model"] == "lsm"

    def test_speakers_are_averaged_each(self, tmp_path: Path) -> None:
        for seed in (0, 1):
            speakers = [{"speaker": "a", "accuracy": 0.6 + 0.2 * seed}, {"speaker": "b", "accuracy": 0.5}]
            left_out = {"mean_accuracy": 0.55 + 0.1 * seed, "speakers": speakers}
            run_file(
                tmp_path, supervised(0.9, leave_one_speaker_out=left_out), experiment="lsm-ntidigits", seed=seed
            )  # fmt: skip
        (row,) = rows(build([tmp_path]), "leave_one_speaker_out")
        assert row["accuracy"]["mean"] == pytest.approx(0.6)
        assert row["speakers"] == {"a": pytest.approx(0.7), "b": 0.5}


@pytest.fixture(scope="module")
def four_seeds(tmp_path_factory: pytest.TempPathFactory) -> LsmReport:
    """Audio to vision: 40 to 60 % among unseen classes, two seeds pass the gates, one reaches the published figure."""
    folder = tmp_path_factory.mktemp("atv")
    for seed, (unseen, best) in enumerate(((0.4, 0.88), (0.6, 0.86), (0.45, 0.7), (0.55, 0.7))):
        run_file(folder, zero_shot(unseen, best=best), experiment="lsm-atv", seed=seed)
    return build([folder])


class TestZeroShot:
    def test_seen_and_unseen_classes_by_both_protocols(self, four_seeds: LsmReport) -> None:
        seen, unseen = rows(four_seeds, "zero_shot_honest")
        assert (seen["classes"], seen["accuracy"]["mean"], seen["chance"]) == ("seen", 0.7, pytest.approx(1 / 3))
        assert (unseen["classes"], unseen["accuracy"]["mean"]) == ("unseen", pytest.approx(0.5))
        assert unseen["reverse"] == pytest.approx(0.25)
        _, paper = rows(four_seeds, "zero_shot_paper")
        assert paper["accuracy"]["mean"] == pytest.approx(0.785)
        assert (paper["passing"], paper["reaching"]) == ("2 of 4", "1 of 4")

    def test_few_pairs(self, four_seeds: LsmReport) -> None:
        (row,) = rows(four_seeds, "shots")
        assert row["shots_5"]["mean"] == pytest.approx(0.8)

    def test_unseen_classes_are_judged_by_the_signs_of_the_seeds(self, four_seeds: LsmReport) -> None:
        """Distances of 0.1, 0.1, 0.05 and 0.05 from one half: their mean with any signs is at most 0.075."""
        (row,) = rows(four_seeds, "unseen")
        assert row["chance_interval"] == pytest.approx([0.425, 0.575])
        assert (row["least"], row["most"]) == (0.4, 0.6)
        assert row["p_value"] == 1.0
        assert (row["reaching_honest"], row["reaching_paper"]) == ("0 of 4", "1 of 4")

    def test_many_seeds_on_one_side_are_beyond_chance(self, tmp_path: Path) -> None:
        for seed in range(8):
            run_file(tmp_path, zero_shot(0.8), experiment="lsm-atv", seed=seed)
        (row,) = rows(build([tmp_path]), "unseen")
        assert row["p_value"] == pytest.approx(2 / 2**8)

    def test_every_split_of_the_classes_is_shown_and_all_windows_together(self, tmp_path: Path) -> None:
        for seed in (0, 1):
            splits = []
            for number, unseen in enumerate((0.9, 0.6 + 0.1 * seed, 0.5)):
                split = zero_shot(unseen, best=unseen + 0.05)
                splits.append({**split, "unseen_classes": [number, number + 1]})
            run_file(tmp_path, {**zero_shot(0.9), "splits": splits}, experiment="lsm-btv", seed=seed)
        found = rows(build([tmp_path]), "splits")
        assert [row["split"] for row in found] == ["published", "window", "window", "all windows"]
        assert [row["honest"]["mean"] for row in found] == pytest.approx([0.9, 0.65, 0.5, 0.575])
        assert found[1]["classes"] == "1, 2"
        assert found[3]["paper"]["mean"] == pytest.approx(0.625)
        # Distances from one half of 0.1 and 0.2 in the one window, none in the other.
        assert found[1]["chance_interval"] == pytest.approx([0.35, 0.65])
        assert found[3]["chance_interval"] == pytest.approx([0.425, 0.575])

    def test_unseen_classes_of_a_single_seed_have_no_interval_over_queries(self, tmp_path: Path) -> None:
        one = zero_shot(0.8)
        one["shots"]["1"] = {**one["shots"]["5"], "n_draws": 1}
        one["shots"]["5"] = {**one["shots"]["5"], "n_draws": 10}
        one["splits"] = [zero_shot(0.8), zero_shot(0.6)]
        run_file(tmp_path, one, experiment="lsm-btv")
        report = build([tmp_path])
        for protocol in ("honest", "paper"):
            seen, unseen = rows(report, f"zero_shot_{protocol}")
            assert seen["accuracy"]["interval"] is not None
            assert (unseen["accuracy"]["interval"], unseen["accuracy"]["interval_of"]) == (None, None)
        assert [row["honest_interval"] is None for row in rows(report, "by_seed")] == [False, True]
        assert rows(report, "unseen")[0]["honest"]["interval"] is None
        assert [row["honest"]["interval"] for row in rows(report, "splits")] == [None, None]
        (shots,) = rows(report, "shots")
        assert [shots[f"shots_{k}"]["interval"] is None for k in (0, 1, 5)] == [True, True, False]
        notes = {table.name: table.note for table in report.accuracies}
        for name in ("zero_shot_honest", "zero_shot_paper", "by_seed"):
            assert "queries of one class go right or wrong together" in notes[name]

    def test_the_figure_draws_no_interval_either(self, tmp_path: Path) -> None:
        run_file(tmp_path, zero_shot(0.8), experiment="lsm-atv")
        axes = draw(build([tmp_path]).groups)["accuracy"].axes[0]
        widths = [np.ptp(line.get_xdata()) for line in axes.lines if len(line.get_xdata()) == 2]
        assert widths == [pytest.approx(20), 0]

    def test_p_says_what_chance_it_does_not_cover(self, four_seeds: LsmReport) -> None:
        (note,) = [table.note for table in four_seeds.accuracies if table.name == "unseen"]
        assert "a lean that is common to all seeds is not covered" in note

    def test_a_pair_with_one_synthetic_side_is_synthetic(self, four_seeds: LsmReport) -> None:
        assert rows(four_seeds, "unseen")[0]["data"] == "spoken-digits + mnist-saccade (synthetic)"

    def test_costs_are_those_of_both_networks(self, four_seeds: LsmReport) -> None:
        (operations,), (spent,) = rows(four_seeds, "operations_of_runs"), rows(four_seeds, "energy_of_runs")
        assert operations["ratio"] == pytest.approx(149.0625)
        assert spent["spike_rates"] == [0.08, 0.27]
        assert spent["hybrid_paper_j"] == pytest.approx(0.543e-6, rel=1e-3)


class TestCosts:
    def test_reported_ratios_stand_beside_counted_ones(self, tmp_path: Path) -> None:
        run_file(tmp_path, supervised(0.9))
        report = build([tmp_path])
        assert [row["reported"] for row in rows(report, "operations")] == [
            802.18, 817.95, 1061.60, 1102.92, 152.83, 393.07
        ]  # fmt: skip
        assert [row["reported_ratio"] for row in rows(report, "energy")] == [29.91, 22.07, 23.34, 160.0]

    def test_energy_counts_the_spikes_of_the_run(self, tmp_path: Path) -> None:
        """Half of the input bits and 9 % of the neurons: 146 rows on average."""
        run_file(tmp_path, supervised(0.9), **arrays())
        (row,) = rows(build([tmp_path]), "energy_of_runs")
        assert row["activity_measured"]
        assert row["hybrid_parts"]["array_j"] == pytest.approx(50 * 146 * 400 * 0.2**2 * 14.25e-6 * 100e-9)

    def test_energy_of_a_board_counts_its_time(self, tmp_path: Path) -> None:
        telemetry = {"vmm_count": 1000.0, "board_time_s": 2.0, "board_convert_s": 1.9}
        emulator = {"name": "emulator", "kind": "emulator", "against": {"name": "sim", "kind": "sim"}}
        compared = {
            **supervised(0.8), "n_samples": 16, "honest_accuracy_against": 0.85, "accuracy_difference": -0.05,
            "accuracy_difference_interval": [-0.2, 0.1], "count_correlation": 0.99, "telemetry": telemetry,
        }  # fmt: skip
        run_file(
            tmp_path, compared, experiment="lsm-nmnist-compare", backend=emulator, tile_rows=np.arange(456)
        )  # fmt: skip
        report = build([tmp_path])
        (spent,), (row,) = rows(report, "energy_of_runs"), rows(report, "compared")
        assert spent["board"] == "counted by the emulator"
        assert spent["board_time_s"] == pytest.approx(0.1)
        assert (row["against"], row["product_time_s"]) == ("sim", pytest.approx(2e-3))
        assert row["product_conversions"] == pytest.approx(1.9e-3 * 50e3 * 8)

    def test_two_arrays_with_two_modalities(self, tmp_path: Path) -> None:
        compared = {
            **zero_shot(0.5), "n_samples": 16, "accuracy": 0.6, "accuracy_against": 0.7, "accuracy_difference": -0.1,
            "accuracy_difference_interval": [-0.2, 0.1],
            "agreement": {"audio": {"count_correlation": 0.99}, "image": {"count_correlation": None}},
            "telemetry": {"vmm_count": 1000.0, "board_time_s": 2.0, "board_convert_s": 1.9},
        }  # fmt: skip
        del compared["projection_outputs"], compared["paper"]
        run_file(tmp_path, compared, experiment="lsm-atv-compare", backend={"name": "emulator", "kind": "emulator"})
        report = build([tmp_path])
        (row,), (spent,) = rows(report, "compared"), rows(report, "energy_of_runs")
        assert (row["accuracy"], row["correlations"]) == (0.6, [0.99, None])
        assert spent["board_time_s"] == pytest.approx((129 + 50) * 2e-3)

    def test_constants_are_those_that_were_given(self, tmp_path: Path) -> None:
        run_file(tmp_path, supervised(0.9))
        dear = build([tmp_path], TechnologySettings(adc_bits=12))
        plain = build([tmp_path])
        assert rows(dear, "energy")[0]["hybrid_j"] > rows(plain, "energy")[0]["hybrid_j"]
        assert dear.as_json()["energy_settings"]["adc_bits"] == 12

    def test_a_baseline_has_no_array_to_account_for(self, tmp_path: Path) -> None:
        run_file(tmp_path, supervised(0.9, model="rnn"), **arrays())
        assert "energy_of_runs" not in build([tmp_path]).as_json()["tables"]


class TestWhichRuns:
    def test_of_a_folder_what_is_of_no_use_is_listed_by_name(self, tmp_path: Path) -> None:
        run_file(tmp_path, supervised(0.9))
        other = run_file(tmp_path, {}, experiment="array-form")
        failed = run_file(tmp_path, None, status="failed", seed=1)
        bare = run_file(tmp_path, None, seed=2)
        (tmp_path / "foreign.h5").write_bytes(b"nothing")
        left_out = {one.path.name: one.reason for one in build([tmp_path]).left_out}
        assert set(left_out) == {other.name, failed.name, bare.name, "foreign.h5"}
        assert "array-form" in left_out[other.name]
        assert "DeviceError: gone" in left_out[failed.name]

    def test_a_named_run_must_be_of_use(self, tmp_path: Path) -> None:
        good = run_file(tmp_path, supervised(0.9))
        other = run_file(tmp_path, {}, experiment="array-form")
        failed = run_file(tmp_path, None, status="failed", seed=1)
        for path, reason in ((other, "array-form"), (failed, "failed")):
            with pytest.raises(ConfigError, match=reason) as refused:
                build([good, path])
            assert path.name in str(refused.value)
        foreign = tmp_path / "foreign.h5"
        foreign.write_bytes(b"nothing")
        with pytest.raises(DataError, match=r"foreign\.h5"):
            build([good, foreign])

    def test_nothing_to_report_is_an_error(self, tmp_path: Path) -> None:
        other = run_file(tmp_path, {}, experiment="array-form")
        with pytest.raises(ConfigError, match=other.name):
            build([tmp_path])

    def test_a_run_that_is_named_twice_counts_once(self, tmp_path: Path) -> None:
        path = run_file(tmp_path, supervised(0.9))
        assert build([path, tmp_path]).n_runs == 1

    def test_a_repeated_run_replaces_the_older_one(self, tmp_path: Path) -> None:
        older = run_file(tmp_path, supervised(0.8))
        run_file(tmp_path, supervised(0.9))
        report = build([tmp_path])
        assert rows(report, "supervised_honest")[0]["accuracy"]["values"] == [0.9]
        assert report.left_out[0].path == older

    def test_runs_that_differ_in_a_setting_are_not_averaged_and_told_apart(self, tmp_path: Path, undrawn: None) -> None:
        for seed in (0, 1):
            for n, accuracy in ((50, 0.7), (200, 0.9)):
                config = {"lsm": {"n_neurons": n, "decay": 0.9}}
                run_file(tmp_path, supervised(accuracy), seed=seed, config=config)
        report = build([tmp_path])
        found = rows(report, "supervised_honest")
        assert {row["settings"]: row["accuracy"]["values"] for row in found} == {
            "lsm.n_neurons=50": [0.7, 0.7], "lsm.n_neurons=200": [0.9, 0.9]
        }  # fmt: skip
        assert [group["apart"] for group in report.as_json()["groups"]] == [
            {"lsm.n_neurons": 200}, {"lsm.n_neurons": 50}
        ]  # fmt: skip
        page = Page(write_report(report, tmp_path / "report.html"))
        assert "what differs" in page.text
        assert "Fewer than 3 seeds: N-MNIST: lsm, mnist-saccade (synthetic), sim, lsm.n_neurons=200" in page.text

    @pytest.mark.parametrize(
        ("experiment", "model", "backend", "unused", "used"),
        [
            ("lsm-nmnist", "lsm", "sim", "brain", "data"),
            ("lsm-nmnist", "lsm", "sim", "baseline", "lsm"),
            ("lsm-nmnist", "lsm", "sim", "emulator", "sim"),
            ("lsm-nmnist", "rnn", "none", "sim", "baseline"),
            ("lsm-btv", "lsm", "sim", "projection", "btv"),
            ("lsm-atv", "lsm", "sim", "btv", "projection"),
            ("lsm-atv", "lsm-proto", "emulator", "readout", "emulator"),
        ],
    )
    def test_only_settings_that_the_experiment_uses_keep_runs_apart(
        self, tmp_path: Path, experiment: str, model: str, backend: str, unused: str, used: str
    ) -> None:
        summary = {**(zero_shot(0.6) if experiment in ("lsm-atv", "lsm-btv") else supervised(0.9)), "model": model}
        for section, n_groups in ((unused, 1), (used, 2)):
            folder = tmp_path / section
            folder.mkdir()
            for seed in (0, 1):
                run_file(
                    folder, summary, experiment=experiment, seed=seed, config={section: {"value": seed}},
                    backend={"name": backend, "kind": backend},
                )  # fmt: skip
            assert len(build([folder]).groups) == n_groups

    def test_seeds_of_settings_are_draws(self, tmp_path: Path) -> None:
        for seed in (3, 4):
            run_file(tmp_path, supervised(0.9), config={"data": {"seed": seed}})
        (row,) = rows(build([tmp_path]), "supervised_honest")
        assert row["n_seeds"] == 2

    @pytest.mark.parametrize(
        ("one", "other", "settings"),
        [
            ({"calibration": "c1"}, {"calibration": "c2"}, {"calibration=c1", "calibration=c2"}),
            (
                {"backend": {"kind": "sim", "chip_file": "a.h5"}}, {"backend": {"kind": "sim", "chip_file": "b.h5"}},
                {"backend.chip_file=a.h5", "backend.chip_file=b.h5"},
            ),
            (
                {"backend": {"kind": "sim", "effects": {"ideal": True}}}, {"backend": {"kind": "sim", "effects": {}}},
                {"backend.effects.ideal=true", "backend.effects.ideal=none"},
            ),
        ],
    )  # fmt: skip
    def test_arrays_with_another_identity_are_not_averaged(
        self, tmp_path: Path, one: dict[str, Any], other: dict[str, Any], settings: set[str]
    ) -> None:
        run_file(tmp_path, supervised(0.8), seed=0, **one)
        run_file(tmp_path, supervised(0.9), seed=1, **other)
        found = rows(build([tmp_path]), "supervised_honest")
        assert {row["settings"] for row in found} == settings

    def test_an_identity_is_not_named_where_settings_say_it(self, tmp_path: Path) -> None:
        for ideal in (True, False):
            backend = {"name": "sim", "kind": "sim", "effects": {"ideal": ideal}}
            run_file(tmp_path, supervised(0.9), config={"sim": {"ideal": ideal}}, backend=backend)
        found = rows(build([tmp_path]), "supervised_honest")
        assert {row["settings"] for row in found} == {"sim.ideal=true", "sim.ideal=false"}

    def test_runs_that_avoid_other_faults_are_other_results(self, tmp_path: Path) -> None:
        for number in (None, 3, 4):
            faults = None if number is None else {"tile_faulty": number, "array": {"stuck_on": 9}}
            run_file(tmp_path, supervised(0.9, faults=faults))
        report = build([tmp_path])
        assert report.left_out == ()
        assert {row["settings"] for row in rows(report, "supervised_honest")} == {
            "faults=none", "faults=tile_faulty 3, array.stuck_on 9", "faults=tile_faulty 4, array.stuck_on 9"
        }  # fmt: skip

    def test_one_seed_on_several_chips_is_several_draws(self, tmp_path: Path, undrawn: None) -> None:
        for chip in (0, 3):
            backend = {"name": "emulator", "kind": "emulator", "seed": chip, "chip": f"simulated, seed {chip}",
                       "board_serial": f"emulated-{chip}"}  # fmt: skip
            run_file(tmp_path, supervised(0.9), backend=backend)
        report = build([tmp_path])
        (row,) = rows(report, "supervised_honest")
        assert (row["n_seeds"], row["draws"]) == (2, ["0", "0, chip 3"])
        assert [one["draw"] for one in rows(report, "by_seed")] == ["0", "0, chip 3"]
        assert "0, chip 3" in Page(write_report(report, tmp_path / "report.html")).text

    def test_macros_are_drawn_by_the_seed_of_the_first(self, tmp_path: Path) -> None:
        for seed in (0, 4):
            macros = [{"chip": f"simulated, seed {seed + k}", "seed": seed + k} for k in range(2)]
            backend = {"name": "sim", "kind": "sim", "grid": [2, 1], "arrangement_seed": seed, "macros": macros}
            run_file(tmp_path, zero_shot(0.6), experiment="lsm-btv", backend=backend)
        (row,) = rows(build([tmp_path]), "unseen")
        assert row["draws"] == ["0", "0, chip 4"]

    def test_the_same_seed_in_another_place_is_not_a_second_seed(self, tmp_path: Path) -> None:
        """Neither an emulator's address nor a calibration's folder or later validation makes another draw."""
        older = run_file(
            tmp_path, supervised(0.8), config={"calibration": {"file": "a/c.h5"}}, calibration="c",
            backend={"name": "emulator", "kind": "emulator", "seed": 0, "calibration": {"validation": None}},
        )  # fmt: skip
        newer = run_file(
            tmp_path, supervised(0.9), config={"calibration": {"file": "b/c.h5"}, "brain": {"trials": 9}},
            calibration="c",
            backend={"name": "tcp://x", "kind": "emulator", "seed": 0, "calibration": {"validation": "good"}},
        )  # fmt: skip
        report = build([tmp_path])
        (row,) = rows(report, "supervised_honest")
        assert row["accuracy"]["values"] == [0.9]
        (left_out,) = report.left_out
        assert left_out.path == older
        assert f"same settings and seed as {newer.stem}" in left_out.reason

    def test_of_many_differences_some_are_named(self, tmp_path: Path) -> None:
        for value in (1, 2):
            run_file(tmp_path, supervised(0.9), config={"sim": {f"s{number}": value for number in range(7)}})
        first, _ = rows(build([tmp_path]), "supervised_honest")
        assert first["settings"].startswith("sim.s0=1, sim.s1=1,")
        assert first["settings"].endswith("and 2 more: group 1 under Configuration")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two runs, whose texts would be scripts."""
    folder = tmp_path_factory.mktemp("page")
    run_file(
        folder, supervised(0.9, data_source=EVIL), config={"note": EVIL}, backend={"name": EVIL}, confusion=PNG,
        **arrays(),
    )  # fmt: skip
    run_file(folder, zero_shot(0.5), experiment="lsm-atv")
    return folder


@pytest.fixture(scope="module")
def page(folder: Path) -> Page:
    return Page(write_report(build([folder]), folder / "report.html"))


@pytest.fixture
def undrawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Matplotlib is not installed."""
    monkeypatch.setattr("experiments.lsm_report.html.find_spec", lambda name: None)


class TestPage:
    def test_it_needs_nothing_else_and_runs_nothing(self, page: Page) -> None:
        assert "script" not in {tag for tag, _ in page.tags}
        assert EVIL in page.text
        assert len(page.sources()) == 3
        assert all(source.startswith("data:image/") for source in page.sources())

    def test_it_says_first_what_is_synthetic_and_what_has_few_seeds(self, page: Page) -> None:
        start = page.text[: page.text.index("Accuracy")]
        assert "(events from a model, not from a recording): mnist-saccade, spoken-digits + mnist-saccade" in start
        assert "Fewer than 3 seeds: N-MNIST: lsm" in start

    def test_provenance_names_every_run(self, folder: Path, page: Page) -> None:
        for path in folder.glob("*.h5"):
            assert path.stem in page.text
        assert "crossbar-hil 1.2.3" in page.text

    def test_tables_have_heads(self, page: Page) -> None:
        for head in ("the other way round", "published", "hybrid, by components"):
            assert head in page.text

    def test_recorded_data_carry_no_mark(self, tmp_path: Path, undrawn: None) -> None:
        run_file(tmp_path, supervised(0.9, **data("nmnist", synthetic=False)))
        page = Page(write_report(build([tmp_path]), tmp_path / "report.html"))
        assert "ynthetic" not in page.text

    def test_without_matplotlib_the_tables_are_there(self, tmp_path: Path, undrawn: None) -> None:
        run_file(tmp_path, supervised(0.9))
        page = Page(write_report(build([tmp_path]), tmp_path / "report.html"))
        assert "need matplotlib" in page.text
        assert "802.18" in page.text


class TestCommand:
    @staticmethod
    def run(*arguments: object) -> Result:
        app = typer.Typer()
        app.command()(report_command)
        return CliRunner().invoke(app, [str(argument) for argument in arguments])

    def test_a_folder_becomes_a_page_and_tables(self, tmp_path: Path, undrawn: None) -> None:
        run_file(tmp_path, supervised(0.9))
        other = run_file(tmp_path, {}, experiment="array-form")
        page = tmp_path / "pages" / "mine.html"
        said = self.run(tmp_path, "--out", page)
        assert said.exit_code == 0, said.output
        assert page.is_file()
        assert f"left out: {other.name}" in said.stdout
        assert f"report: {page}" in said.stdout

    def test_json_holds_the_tables_and_settings_of_energy_apply(self, tmp_path: Path, undrawn: None) -> None:
        run_file(tmp_path, supervised(0.9))
        page = tmp_path / "report.html"
        said = self.run(tmp_path, "--out", page, "--json", "--set", "energy.adc_bits=6")
        found = json.loads(said.stdout)
        assert found["report"] == str(page)
        assert found["energy_settings"]["adc_bits"] == 6
        assert found["tables"]["supervised_honest"][0]["accuracy"]["mean"] == 0.9

    def test_a_run_may_be_named_by_a_part_of_its_id(self, tmp_path: Path, undrawn: None) -> None:
        path = run_file(tmp_path, supervised(0.9))
        said = self.run(path.stem[-8:], "--runs", tmp_path, "--out", tmp_path / "report.html")
        assert said.exit_code == 0, said.output

    def test_a_run_of_another_kind_is_refused_and_no_page_written(self, tmp_path: Path) -> None:
        path = run_file(tmp_path, {}, experiment="array-form")
        said = self.run(path, "--out", tmp_path / "report.html")
        assert said.exit_code != 0
        assert path.name in said.stderr
        assert not (tmp_path / "report.html").exists()


def test_columns_without_a_value_are_not_shown() -> None:
    table = Table(
        "t", "T", (Column("a", "A"), Column("b", "B"), Column("c", "C")), [{"a": 1, "b": None}, {"a": 2, "c": 0}]
    )
    assert table.heads == ("A", "C")
    assert table.texts() == [("1", ""), ("2", "0")]


@pytest.mark.parametrize(
    ("shown", "text"),
    [(energy(4.39e-6), "4.39 µJ"), (energy(2.4), "2.4 J"), (energy(1.5e-13), "0.15 pJ"), (duration(0.4), "400 ms")],
)
def test_quantities_have_prefixes(shown: str, text: str) -> None:
    assert shown.replace("\N{NO-BREAK SPACE}", " ") == text
