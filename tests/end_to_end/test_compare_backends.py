"""`hil lsm nmnist --samples N`: what is compared, what is kept, what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hil.runfile import open_run

EMULATOR = ("--backend", "emulator")


def test_emulated_board_against_the_simulator_of_the_same_chip(hil: Any, small: list[str], tmp_path: Path) -> None:
    result = hil("lsm", "nmnist", *small, *EMULATOR, "--samples", 4, "--seed", 2, "--json").json
    assert (result["experiment"], result["backend"], result["against"]) == ("lsm nmnist compare", "emulator", "sim")
    assert (result["n_samples"], result["n_test"], result["n_train"]) == (4, 30, 100)
    # Other cells would give counts that have little in common.
    assert result["count_correlation"] > 0.8
    for side in ("", "_against"):
        low, high = result[f"accuracy_interval{side}"]
        assert low <= result[f"honest_accuracy{side}"] <= high
    assert result["telemetry"]["board_time_s"] > 0
    assert set(result["telemetry_against"]) == {
        "vmm_count", "vmm_by_conversion_count", "cell_reads_count", "pulses_count",
    }  # fmt: skip
    run_file = Path(result["run_file"])
    assert {path.name for path in (tmp_path / "runs").iterdir()} == {run_file.name, run_file.stem}
    assert result["figures"] == [str(run_file.with_suffix("") / "side_by_side.png")]
    with open_run(run_file) as reader:
        assert (reader.status, reader.experiment, reader.seed) == ("complete", "lsm-nmnist-compare", 2)
        assert (reader.backend["name"], reader.backend["profile"]) == ("emulator", "paper-guess")
        assert (reader.backend["against"]["name"], reader.backend["against"]["seed"]) == ("sim", 2)
        assert reader.backend["against"]["calibration"] is None
        counts, against = reader.table("counts_test"), reader.table("counts_against")
        np.testing.assert_array_equal(counts["sample"], against["sample"])
        np.testing.assert_array_equal(counts["label"], against["label"])
        assert reader.row_count("counts_train") == 100
        assert counts["counts"].shape == (4, 16)
        summary = reader.results["summary"]
    assert summary["count_correlation"] == result["count_correlation"]


@pytest.mark.usefixtures("blank_figures")
def test_equal_seeds_compare_the_same_samples_and_give_the_same_counts(hil: Any, small: list[str]) -> None:
    found = []
    for seed in (1, 1, 2):
        result = hil("lsm", "nmnist", *small, "--samples", 12, "--seed", seed, "--json").json
        with open_run(Path(result["run_file"])) as reader:
            found.append(reader.table("counts_test"))
    first, again, other = found
    for column in ("sample", "label", "counts"):
        np.testing.assert_array_equal(first[column], again[column])
    assert not np.array_equal(first["sample"], other["sample"])


@pytest.mark.usefixtures("blank_figures")
def test_text_for_people(hil: Any, small: list[str]) -> None:
    ran = hil("lsm", "nmnist", *small, "--samples", 10, "--against", "sim")
    assert (ran.code, ran.stderr) == (0, "")
    text = " ".join(ran.stdout.split())
    for part in ("10 of 30 for comparing", "reference sim", "difference", "count correlation", "vmm_count", "figure:"):
        assert part in text


@pytest.mark.usefixtures("blank_figures")
def test_counts_that_never_vary_have_no_correlation(hil: Any, small: list[str]) -> None:
    arguments = ("lsm", "nmnist", *small, "--samples", 5, "--set", "lsm.v_threshold=1e9")
    result = hil(*arguments, "--json").json
    assert result["count_correlation"] is None
    assert result["count_correlation_by_neuron"] is None
    assert "not defined" in hil(*arguments).stdout


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        (("--samples", 5, "--against", "bord"), ("unknown backend 'bord'", "choose one of: sim")),
        (("--samples", 5, *EMULATOR, "--set", "sim.rows=400"), ("emulator has 512 x 512", "sim has 400 x 512")),
        (("--samples", 5, "--set", "limits.v_read_max_v=0.19"), ("0.2 V is outside 0 to 0.19 V",)),
        ((*EMULATOR, "--set", "lsm.engine=torch"), ("'emulator' does not", "lsm.engine=numba")),
        ((*EMULATOR, "--set", "board.profile=tiny-8x8"), ("does not fit", "board.profile")),
        (("--samples", 5, "--set", "data.n_train=1"), ("none can be held out", "data.n_train")),
        (("--set", "data.n_train=1"), ("none can be held out", "data.n_train")),
    ],
)  # fmt: skip
def test_refused_before_a_run_file_exists(
    hil: Any, small: list[str], tmp_path: Path, arguments: tuple[object, ...], parts: tuple[str, ...]
) -> None:
    ran = hil("lsm", "nmnist", *small, *arguments)
    assert (ran.code, ran.stdout) == (2, ""), ran.stderr
    assert ran.stderr.startswith("error: ")
    assert ran.stderr.count("\n") == 1
    for part in parts:
        assert part in ran.stderr
    assert list(tmp_path.iterdir()) == []
