"""Runs of trained baselines from packed spikes to run file and figures."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from experiments.baselines import supervised, zero_shot
from experiments.baselines.settings import BaselineSettings
from experiments.datasets import SpikeDataset, SpikeSet
from experiments.lsm.zero_shot_settings import AtvSettings
from hil.config import Settings
from hil.errors import ConfigError
from hil.runfile import RunFile, TableSpec, open_run
from hil.spikes import pack_bits

N_CLASSES = 5
SMALL = {"const": 0.3, "batch": 20, "epochs": 2}
ENCODER = {"v_threshold": 1.0, "lens": 0.5, "const": 0.4}
PAIRS = {"query": ENCODER, "gallery": ENCODER, "n_neurons": 10, "outputs": 6, "batch": 20, "epochs": 2}


class Root(Settings):
    """The sections that a run reads."""

    atv: AtvSettings = AtvSettings(seen=[0, 1], unseen=[3, 4], n_test_per_class=1, shots=[0, 2], n_shot_draws=2)
    baseline: BaselineSettings = BaselineSettings.model_validate(
        {"n_neurons": 10, "steps_min": 1, "vision": {"srnn_ann": SMALL}, "atv": {"srnn_clip": PAIRS}}
    )


def rasters(n_inputs: int, n_steps: int, seed: int) -> SpikeDataset:
    """Five classes, each with inputs of its own that are busy."""
    rng = np.random.default_rng(seed)

    def split(n: int) -> SpikeSet:
        labels = np.repeat(np.arange(N_CLASSES), n)
        busy = np.arange(n_inputs) % N_CLASSES == labels[:, None]
        bits = rng.random((len(labels), n_steps, n_inputs)) < np.where(busy, 0.5, 0.08)[:, None]
        return SpikeSet(pack_bits(bits), labels)

    return SpikeDataset("toy", split(8), split(4), n_inputs, n_steps, N_CLASSES, True, "made for a test")


def started(folder: Path, tables: list[TableSpec]) -> RunFile:
    return RunFile.create(folder, "toy", config={}, backend={}, calibration="", seed=0, software={}, tables=tables)


def test_a_supervised_run_leaves_scores_history_weights_and_figures(tmp_path: Path) -> None:
    dataset = rasters(20, 8, 0)
    with started(tmp_path, supervised.tables()) as run_file:
        outcome = supervised.run(dataset, "srnn-ann", Root(), run_file, seed=1)
    with open_run(run_file.path) as reader:
        assert reader.status == "complete"
        results, history = reader.results, reader.table("history")
        assert set(reader.figures) == {"confusion", "learning"} == set(outcome.figures)
    found = results["summary"]
    assert found == supervised.summary(outcome, dataset)
    assert (found["model"], found["dataset"], found["data_synthetic"]) == ("srnn-ann", "toy", True)
    assert (found["n_train"], found["n_test"]) == (40, 20)
    table, predicted = results["confusion_matrix"], results["predicted"]
    assert np.trace(table) / table.sum() == pytest.approx(found["honest_accuracy"])
    assert np.mean(predicted == dataset.test.labels) == pytest.approx(found["honest_accuracy"])
    weights = {name: value for name, value in results.items() if name.startswith("weights_")}
    assert sum(value.size for value in weights.values()) == found["n_weights"]
    assert weights["weights_head"].shape == (N_CLASSES, 10)
    assert list(history["training"]) == ["validation"] * 2 + ["all"] * 2
    assert np.isnan(history["test_accuracy"]).tolist() == [True, True, False, False]
    assert np.isnan(history["validation_accuracy"]).tolist() == [False, False, True, True]
    assert np.nanmax(history["test_accuracy"]) == found["paper_accuracy"]


def test_a_zero_shot_run_has_the_summary_of_the_random_network(tmp_path: Path) -> None:
    query, gallery = rasters(20, 8, 0), rasters(30, 6, 1)
    with started(tmp_path, zero_shot.tables()) as run_file:
        outcome = zero_shot.run(query, gallery, "srnn-clip", "atv", Root(), run_file, seed=1)
    with open_run(run_file.path) as reader:
        assert reader.status == "complete"
        results, history = reader.results, reader.table("history")
        assert set(reader.figures) == set(outcome.figures) >= {"confusion_honest", "confusion_paper", "shots"}
    found = results["summary"]
    assert found == outcome.summary
    assert found["model"] == "srnn-clip"
    assert (found["query"]["name"], found["gallery"]["name"]) == ("audio", "image")
    assert (found["query"]["n_inputs"], found["gallery"]["n_steps"]) == (20, 6)
    assert (found["n_train_pairs"], found["n_test_seen"], found["n_test_unseen"]) == (16, 2, 2)
    assert set(found["shots"]) == {"0", "2"}
    assert set(found["spike_rate"]) == {"audio", "image"}
    for protocol in ("honest", "paper"):
        assert {"seen", "unseen"} <= set(found[protocol])
    assert results["query_embeddings"].shape == (4, 6)
    assert list(history["training"]) == ["validation"] * 2 + ["all"] * 2
    assert history["test_seen_accuracy"][2:].tolist() == results["curve_seen"].tolist()


def test_a_model_that_is_not_there_is_refused_before_anything_is_trained(tmp_path: Path) -> None:
    with (
        started(tmp_path, supervised.tables()) as run_file,
        pytest.raises(ConfigError, match="srnn-ann, srnn-snn, rnn"),
    ):
        supervised.run(rasters(20, 8, 0), "lstm", Root(), run_file, seed=0)
