"""Audio to vision on small simulated chips: one backend, and two side by side."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from experiments.datasets import SpikeDataset, SpikeSet
from experiments.lsm import atv, atv_side_by_side
from experiments.lsm.atv import AtvRunSettings, Encoders
from experiments.lsm.pairs import pair_by_index
from hil.errors import ConfigError, LimitError
from hil.lsm.readout import features_of
from hil.runfile import RunFile, RunReader, open_run
from hil.session import open_session
from hil.spikes import pack_bits
from sim_backend.backend import SimBackend
from sim_backend.settings import SimSettings

N_NEURONS = 10
SETTINGS = AtvRunSettings.model_validate(
    {
        "lsm": {"n_neurons": N_NEURONS},
        "atv": {
            "seen": [0, 1, 2], "unseen": [3, 4], "n_test_per_class": 6, "shots": [0, 2], "n_shot_draws": 2,
            "n_shot_pool": 4, "image": {"v_threshold": 2.0}, "audio": {"v_threshold": 1.5, "decay": 0.97},
        },
        "projection": {"outputs": 6, "epochs": 3, "penalties": [0.0]},
    }
)  # fmt: skip


def dataset(name: str, n_inputs: int, n_steps: int, seed: int) -> SpikeDataset:
    """Six classes of random spikes, each with rates of its own; class 5 takes no part."""
    rng = np.random.default_rng(seed)
    rates = 0.5 * rng.random((6, n_inputs))

    def split(n: int) -> SpikeSet:
        labels = np.arange(6 * n) % 6
        return SpikeSet(pack_bits(rng.random((6 * n, n_steps, n_inputs)) < rates[labels][:, None]), labels)

    return SpikeDataset(name, split(10), split(8), n_inputs, n_steps, 6, True, "made here")


AUDIO, VISION = dataset("voices", 8, 25, 0), dataset("pictures", 20, 15, 1)


def chip(seed: int = 3, **effects: Any) -> SimBackend:
    return SimBackend(SimSettings.model_validate({"rows": 32, "cols": 20, **effects}), seed=seed)


def run_file(folder: Path, tables: Any) -> RunFile:
    return RunFile.create(folder, "atv", config={}, backend={}, calibration=None, seed=5, software={}, tables=tables)


def run(folder: Path, seed: int = 5) -> tuple[atv.Outcome, RunReader]:
    kept = run_file(folder, atv.tables(N_NEURONS))
    with kept, open_session(chip()) as session:
        outcome = atv.run(session, AUDIO, VISION, SETTINGS, kept, seed=seed)
    return outcome, open_run(kept.path)


def test_a_run_keeps_counts_arrays_figures_and_summary(tmp_path: Path) -> None:
    outcome, reader = run(tmp_path)
    with reader:
        summary, results = reader.results["summary"], reader.results
        audio_train, image_test = reader.table("counts_audio_train"), reader.table("counts_image_test")
        figures = [reader.figure(name) for name in outcome.figures]
    # 10 samples of each seen class and 4 of each unseen one that shots are drawn from; class 5 is not encoded.
    np.testing.assert_array_equal(np.bincount(audio_train["label"]), [10, 10, 10, 4, 4])
    np.testing.assert_array_equal(AUDIO.train.labels[audio_train["sample"]], audio_train["label"])
    np.testing.assert_array_equal(np.bincount(image_test["label"]), [6] * 5)
    np.testing.assert_array_equal(results["gallery_features"], features_of(image_test["counts"], VISION.n_steps))
    assert summary == outcome.summary
    assert set(outcome.figures) == {
        "confusion_honest", "confusion_paper", "similarity", "accuracy_by_epoch", "shots", "tsne"
    }  # fmt: skip
    assert all(png.startswith(b"\x89PNG") for png in figures)
    assert np.trace(results["confusion_honest_seen"]) == round(18 * summary["honest"]["seen"]["accuracy"])
    assert results["class_similarity"].shape == (5, 5)
    assert results["tsne_before"].shape == results["tsne_after"].shape == (60, 2)
    assert results["tsne_is_query"].sum() == 30
    assert (summary["query"]["name"], summary["gallery"]["name"]) == ("audio", "image")
    assert (summary["query"]["n_inputs"], summary["gallery"]["n_steps"]) == (8, 15)
    assert summary["n_train_pairs"] == 30
    assert 0.0 < summary["spike_rate"]["audio"] < 1.0
    assert summary["telemetry"]["vmm_count"] > 0
    assert results["tile_rows"].shape == (30,)


def test_both_networks_share_the_cells_but_not_the_neurons() -> None:
    with open_session(chip()) as session:
        encoders = Encoders.on(session, SETTINGS, AUDIO, VISION, None)
        np.testing.assert_array_equal(encoders.audio.tile.rows, [*range(8), *range(20, 30)])
        np.testing.assert_array_equal(encoders.audio.tile.plus_cols, encoders.image.tile.plus_cols)
        assert (encoders.audio.settings.decay, encoders.image.settings.decay) == (0.97, 0.9)
        with pytest.raises(LimitError, match="20 inputs cannot share the rows of one of 8"):
            Encoders.on(session, SETTINGS, VISION, AUDIO, None)


def compare(
    folder: Path, backend: SimBackend, reference: SimBackend, n_samples: int
) -> tuple[atv_side_by_side.Outcome, RunReader]:
    kept = run_file(folder, atv_side_by_side.tables(N_NEURONS))
    with kept, open_session(reference) as against, open_session(backend) as session:
        outcome = atv_side_by_side.run(session, against, AUDIO, VISION, SETTINGS, kept, n_samples=n_samples, seed=5)
    return outcome, open_run(kept.path)


def test_without_noise_a_chip_agrees_with_itself(tmp_path: Path) -> None:
    outcome, reader = compare(tmp_path, chip(ideal=True), chip(ideal=True), 12)
    with reader:
        for side in atv.SIDES:
            one, other = reader.table(f"counts_{side}_test"), reader.table(f"counts_{side}_against")
            np.testing.assert_array_equal(one["counts"], other["counts"])
            assert one["counts"].sum() > 0
            assert set(one["label"]) == {0, 1, 2, 3, 4}
            assert reader.row_count(f"counts_{side}_train") == 30
        summary = reader.results["summary"]
    assert summary["accuracy_difference"] == 0.0
    assert summary["accuracy"] == summary["accuracy_against"]
    assert summary["agreement"]["audio"]["count_correlation"] == pytest.approx(1.0)
    np.testing.assert_array_equal(outcome.judged.seen.found, outcome.judged_against.seen.found)


def test_noise_is_independent_and_projections_are_of_the_reference_alone(tmp_path: Path) -> None:
    noise = {"relative": 0.15}
    same, reader = compare(tmp_path, chip(noise=noise), chip(noise=noise), 12)
    other, other_reader = compare(tmp_path, chip(seed=4, noise=noise), chip(noise=noise), 12)
    with reader, other_reader:
        for side in atv.SIDES:
            one, against = (reader.table(f"counts_{side}_{kind}")["counts"] for kind in ("test", "against"))
            assert (one != against).any(axis=1).mean() > 0.5
            np.testing.assert_array_equal(against, other_reader.table(f"counts_{side}_against")["counts"])
    assert same.chosen == other.chosen
    np.testing.assert_array_equal(same.judged_against.seen.found, other.judged_against.seen.found)
    for side in atv.SIDES:
        r, r_other = (found.agreement[side].count_correlation for found in (same, other))
        assert r is not None
        assert r_other is not None
        assert r_other < r < 1.0
    assert same.summary["telemetry_against"]["vmm_count"] > same.summary["telemetry"]["vmm_count"]


def test_drawn_pairs_are_nested_and_of_every_class() -> None:
    pairs = pair_by_index(np.repeat([0, 1, 2], 10), np.repeat([0, 1, 2], 10), [0, 1, 2])
    few, many = (atv_side_by_side.draw_pairs(pairs, n, 3) for n in (6, 14))
    np.testing.assert_array_equal(np.bincount(few.labels), [2, 2, 2])
    assert np.bincount(many.labels).min() == 4
    assert set(few.query.tolist()) <= set(many.query.tolist())
    assert len(set(many.query.tolist())) == 14
    assert set(few.query.tolist()) != set(atv_side_by_side.draw_pairs(pairs, 6, 4).query.tolist())
    for n in (2, 31):
        with pytest.raises(ConfigError, match=f"--samples {n} is outside 3 to 30"):
            atv_side_by_side.draw_pairs(pairs, n, 0)
