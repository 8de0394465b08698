"""Training on one backend and testing on another, both ways."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from experiments.datasets import SpikeDataset
from experiments.datasets.spike_dataset import SpikeSet
from experiments.lsm import transfer
from experiments.lsm.paired import difference_interval
from experiments.lsm.protocols import LabelledFeatures
from experiments.lsm.row_vectors import row_vectors
from experiments.lsm.supervised import SupervisedSettings
from hil.errors import ConfigError
from hil.lsm.accuracy import wilson_interval
from hil.lsm.encoder import LsmEncoder
from hil.lsm.reference import trace
from hil.runfile import RunFile, RunReader, open_run
from hil.session import open_session
from hil.spikes import pack_bits
from sim_backend.backend import SimBackend
from sim_backend.settings import SimSettings

N_INPUTS, N_STEPS, N_NEURONS = 24, 20, 8
SETTINGS = SupervisedSettings.model_validate(
    {
        "lsm": {"n_neurons": N_NEURONS, "v_threshold": 2.0},
        "readout": {"epochs": 6, "steps_min": 60, "weight_decays": [1e-4], "validation_fraction": 0.2},
    }
)


def dataset() -> SpikeDataset:
    """Three classes of random spikes, each with inputs of its own that spike more often."""
    rng = np.random.default_rng(0)

    def split(n: int) -> SpikeSet:
        labels = np.arange(n) % 3
        rate = np.where(np.arange(N_INPUTS) // 8 == labels[:, None], 0.4, 0.05)
        return SpikeSet(pack_bits(rng.random((n, N_STEPS, N_INPUTS)) < rate[:, None]), labels)

    return SpikeDataset("made", split(150), split(200), N_INPUTS, N_STEPS, 3, True, "made here")


def chip(seed: int = 3, **effects: Any) -> SimBackend:
    return SimBackend(SimSettings.model_validate({"rows": 32, "cols": 16, **effects}), seed=seed)


def run(folder: Path, board: SimBackend, simulator: SimBackend, **kwargs: Any) -> tuple[transfer.Outcome, RunReader]:
    tables = transfer.tables(N_NEURONS)
    run_file = RunFile.create(
        folder, "transfer", config={}, backend={}, calibration=None, seed=5, software={}, tables=tables
    )
    sizes = {"n_train": 120, "n_test": 150, "seed": 5, **kwargs}
    with run_file, open_session(simulator) as there, open_session(board) as here:
        outcome = transfer.run(here, there, dataset(), SETTINGS, run_file, **sizes)
    return outcome, open_run(run_file.path)


def test_without_noise_one_chip_transfers_to_itself_without_loss(tmp_path: Path) -> None:
    outcome, reader = run(tmp_path, chip(ideal=True), chip(ideal=True))
    reader.close()
    np.testing.assert_array_equal(outcome.right, np.broadcast_to(outcome.right[0, 0], outcome.right.shape))
    assert outcome.accuracy[0, 0] > 0.6
    for tested in range(2):
        lost, (low, high) = outcome.lost(tested)
        assert lost == 0.0
        assert low < 0.0 < high


def test_what_was_learned_on_another_chip_is_worth_little(tmp_path: Path) -> None:
    outcome, reader = run(tmp_path, chip(seed=4), chip())
    reader.close()
    for tested in range(2):
        lost, (low, _) = outcome.lost(tested)
        assert lost > 0.1
        assert low > 0.0
        own, other = outcome.right[tested, tested], outcome.right[1 - tested, tested]
        assert outcome.lost(tested) == (pytest.approx(own.mean() - other.mean()), difference_interval(own, other))


def test_the_run_file_holds_counts_of_the_same_samples_and_the_table(tmp_path: Path) -> None:
    noise = {"relative": 0.15}
    outcome, reader = run(tmp_path, chip(noise=noise), chip(noise=noise))
    with reader:
        kept = {name: reader.table(name) for name in (spec.name for spec in transfer.tables(N_NEURONS))}
        summary, predicted = reader.results["summary"], reader.results["predicted"]
        assert reader.figure("transfer").startswith(b"\x89PNG")
    for split, n in (("train", 120), ("test", 150)):
        board, simulator = kept[f"counts_{split}_board"], kept[f"counts_{split}_simulator"]
        np.testing.assert_array_equal(board["sample"], simulator["sample"])
        assert len(set(board["sample"].tolist())) == n
        np.testing.assert_array_equal(board["label"], board["sample"] % 3)
        # Their noise is independent though the seed is the same.
        assert (board["counts"] != simulator["counts"]).any(axis=1).mean() > 0.5
    np.testing.assert_array_equal(outcome.right, predicted == kept["counts_test_board"]["label"])
    cells = {(cell["trained_on"], cell["tested_on"]): cell for cell in summary["transfer"]}
    assert set(cells) == {(a, b) for a in transfer.SIDES for b in transfer.SIDES}
    cell, right = cells["simulator", "board"], outcome.right[1, 0]
    assert cell["accuracy"] == right.mean()
    assert cell["accuracy_interval"] == list(wilson_interval(int(right.sum()), 150))
    assert summary["lost_by_transfer"][0]["tested_on"] == "board"


def test_something_else_can_be_learned_from_counts_of_one_side_at_a_time(tmp_path: Path) -> None:
    seen: list[LabelledFeatures] = []

    class Always:
        def __init__(self, label: int) -> None:
            self.label = label

        def predict(self, features: Any) -> Any:
            return np.full(len(features), self.label)

    def learn(training: LabelledFeatures, progress: Any) -> Always:
        seen.append(training)
        return Always(len(seen))

    outcome, reader = run(tmp_path, chip(seed=4), chip(), learn=learn)
    with reader:
        predicted = reader.results["predicted"]
    assert (predicted[0] == 1).all()
    assert (predicted[1] == 2).all()
    assert len(seen) == 2
    assert all(len(training.labels) == 120 for training in seen)
    np.testing.assert_array_equal(seen[0].labels, seen[1].labels)
    assert (seen[0].features != seen[1].features).any()
    assert 0.2 < outcome.accuracy[0, 0] < 0.5


@pytest.mark.parametrize(
    ("sizes", "text"),
    [({"n_train": 151}, "--train 151 is outside 1 to 150"), ({"n_test": 0}, "--test 0 is outside 1 to 200"),
     ({"n_train": 1}, "held out")],
)  # fmt: skip
def test_samples_that_are_not_there_are_refused_before_anything_is_encoded(
    tmp_path: Path, sizes: dict[str, int], text: str
) -> None:
    board = chip()
    with pytest.raises(ConfigError, match=text):
        run(tmp_path, board, chip(), **sizes)
    assert board.telemetry().values["vmm_count"] == 0


def test_row_vectors_are_what_the_network_puts_on_its_rows() -> None:
    with open_session(chip(ideal=True)) as session:
        encoder = LsmEncoder(session, SETTINGS.lsm, N_INPUTS)
        words = dataset().test.words[:3]
        found = row_vectors(encoder, words, 1000, seed=0)
        some = row_vectors(encoder, words, 10, seed=0)
        traced = trace(encoder, words)
    expected = []
    for sample in range(3):
        for step in range(N_STEPS):
            own = traced.spikes[sample, step - 1] if step else np.zeros(N_NEURONS, np.bool_)
            expected.append(np.concatenate([traced.inputs[sample, step], own]))
    kept = np.array([vector for vector in expected if vector.any()])
    np.testing.assert_array_equal(found, kept)
    assert found[:, N_INPUTS:].any()
    assert len(some) == 10
    assert {vector.tobytes() for vector in some} <= {vector.tobytes() for vector in found}
