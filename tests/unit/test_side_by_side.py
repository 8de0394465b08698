"""Comparison of two backends: figures of merit, and small simulated chips side by side."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from experiments.datasets import SpikeDataset
from experiments.datasets.spike_dataset import SpikeSet
from experiments.lsm import side_by_side
from experiments.lsm.paired import difference_interval
from experiments.lsm.repeats import CountAgreement
from experiments.lsm.side_by_side import Agreement, correlations, draw_samples
from experiments.lsm.supervised import SupervisedSettings
from hil.errors import ConfigError
from hil.runfile import RunFile, RunReader, open_run
from hil.session import open_session
from hil.spikes import pack_bits
from sim_backend.backend import SimBackend
from sim_backend.settings import SimSettings

N_INPUTS, N_STEPS, N_NEURONS = 24, 20, 8
SETTINGS = SupervisedSettings.model_validate(
    {
        "lsm": {"n_neurons": N_NEURONS, "v_threshold": 2.0},
        "readout": {"epochs": 2, "steps_min": 10, "weight_decays": [1e-3], "validation_fraction": 0.2},
    }
)


def test_drawn_samples_are_distinct_sorted_and_nested() -> None:
    few, many = draw_samples(100, 8, 3), draw_samples(100, 40, 3)
    assert len(set(few.tolist())) == 8
    assert (np.diff(few) > 0).all()
    assert set(few.tolist()) <= set(many.tolist())
    np.testing.assert_array_equal(draw_samples(5, 5, 0), np.arange(5))


@pytest.mark.parametrize("n", [0, 101])
def test_too_few_or_too_many_are_refused(n: int) -> None:
    with pytest.raises(ConfigError, match=f"--samples {n} is outside 1 to 100"):
        draw_samples(100, n, 0)


def test_correlations_are_those_of_numpy() -> None:
    rng = np.random.default_rng(0)
    a = rng.integers(0, 20, (30, 5)).astype(np.uint16)
    b = (a + rng.integers(0, 9, a.shape)).astype(np.uint16)
    b[:, 4] = 7  # never varies
    expected = [np.corrcoef(a[:, k], b[:, k])[0, 1] for k in range(4)]
    np.testing.assert_allclose(correlations(a, b), expected)
    found = Agreement.of(a, a)
    assert found.count_correlation == pytest.approx(1.0)
    assert found.count_mean_difference == 0.0
    assert Agreement.of(np.zeros_like(a), a).count_correlation is None


def test_interval_of_a_paired_difference() -> None:
    """Newcombe 1998, table II: 36 both right, 12 and 2 right on one side only, none wrong twice."""
    one = np.repeat([True, True, False], [36, 12, 2])
    other = np.repeat([True, False, True], [36, 12, 2])
    low, high = difference_interval(one, other)
    assert low < 0.2 < high
    assert (low, high) == pytest.approx((0.0569, 0.3404), abs=2e-3)
    same_low, same_high = difference_interval(one, one)
    assert same_low < 0.0 < same_high


def test_interval_takes_the_correlation_of_the_pairs_with_its_correction() -> None:
    """Airway hyper-responsiveness before and after treatment (Bentur et al.): -0.507 to -0.026 in the literature."""
    one = np.repeat([True, True, False, False], [1, 1, 7, 12])
    other = np.repeat([True, False, True, False], [1, 1, 7, 12])
    assert difference_interval(one, other) == pytest.approx((-0.507, -0.026), abs=5e-4)


def test_repeats_of_a_sample_make_no_interval_narrower() -> None:
    rng = np.random.default_rng(0)
    one, other = rng.random((2, 60)) < 0.8
    expected = difference_interval(one, other)
    assert difference_interval(np.stack([one] * 5), np.stack([other] * 5)) == pytest.approx(expected)
    assert difference_interval(one[None], other[None]) == expected


@pytest.mark.parametrize(("right", "against"), [(True, True), (False, False), (True, False), (False, True)])
def test_interval_of_one_sample_is_wide_and_holds_the_difference(right: bool, against: bool) -> None:
    low, high = difference_interval(np.array([right]), np.array([against]))
    assert -1.0 <= low <= int(right) - int(against) <= high <= 1.0
    assert high - low > 0.7


def dataset(n_train: int, n_test: int) -> SpikeDataset:
    """Three classes of random spikes, each with inputs of its own that spike more often."""
    rng = np.random.default_rng(0)

    def split(n: int) -> SpikeSet:
        labels = np.arange(n) % 3
        rate = np.where(np.arange(N_INPUTS) // 8 == labels[:, None], 0.4, 0.1)
        return SpikeSet(pack_bits(rng.random((n, N_STEPS, N_INPUTS)) < rate[:, None]), labels)

    return SpikeDataset("made", split(n_train), split(n_test), N_INPUTS, N_STEPS, 3, True, "made here")


def chip(seed: int = 3, **effects: Any) -> SimBackend:
    return SimBackend(SimSettings.model_validate({"rows": 32, "cols": 16, **effects}), seed=seed)


def compare(
    folder: Path, backend: SimBackend, reference: SimBackend, *, n_samples: int, n_train: int = 60, repeats: int = 1
) -> tuple[side_by_side.Outcome, RunReader]:
    tables = side_by_side.tables(N_NEURONS)
    run_file = RunFile.create(
        folder, "compare", config={}, backend={}, calibration=None, seed=5, software={}, tables=tables
    )
    with run_file, open_session(reference) as against, open_session(backend) as session:
        outcome = side_by_side.run(
            session, against, dataset(n_train, 200), SETTINGS, run_file, n_samples=n_samples, seed=5, repeats=repeats
        )
    return outcome, open_run(run_file.path)


def test_without_noise_a_chip_agrees_with_itself_in_every_spike(tmp_path: Path) -> None:
    outcome, run = compare(tmp_path, chip(ideal=True), chip(ideal=True), n_samples=30)
    with run:
        counts, against = run.table("counts_test"), run.table("counts_against")
    np.testing.assert_array_equal(counts["counts"], against["counts"])
    assert counts["counts"].sum() > 0
    assert outcome.agreement.count_correlation == pytest.approx(1.0)
    assert outcome.agreement.count_mean_difference == 0.0
    np.testing.assert_array_equal(outcome.right, outcome.right_against)


def test_what_differs_is_seen_and_kept(tmp_path: Path) -> None:
    """An ideal chip against one with strong noise, and against another chip."""
    outcome, run = compare(tmp_path, chip(noise={"relative": 0.15}), chip(ideal=True), n_samples=30)
    other, other_run = compare(tmp_path, chip(seed=4, ideal=True), chip(ideal=True), n_samples=30)
    other_run.close()
    noisy_r, other_r = outcome.agreement.count_correlation, other.agreement.count_correlation
    assert noisy_r is not None
    assert other_r is not None
    assert other_r < noisy_r < 0.999
    drawn = draw_samples(200, 30, 5)
    with run:
        for table in ("counts_test", "counts_against"):
            np.testing.assert_array_equal(run.table(table)["sample"], drawn)
            np.testing.assert_array_equal(run.table(table)["label"], drawn % 3)
        assert run.row_count("counts_train") == 60
        found = Agreement.of(run.table("counts_test")["counts"], run.table("counts_against")["counts"])
        assert found == outcome.agreement
        summary = run.results["summary"]
        right = run.results["predicted"] == drawn % 3
        right_against = run.results["predicted_against"] == drawn % 3
        assert run.figure("side_by_side").startswith(b"\x89PNG")
    assert summary["honest_accuracy"] == right.mean()
    assert summary["honest_accuracy_against"] == right_against.mean()
    assert summary["accuracy_difference"] == pytest.approx(right.mean() - right_against.mean())
    assert summary["telemetry"]["vmm_count"] > 30 * N_STEPS


def test_noise_is_independent_though_the_seed_is_the_same(tmp_path: Path) -> None:
    """Every sample, also those beyond the few that the reference trained on, whose streams training did not advance."""
    noise = {"relative": 0.15}
    _, run = compare(tmp_path, chip(noise=noise), chip(noise=noise), n_samples=200, n_train=30)
    with run:
        differs = (run.table("counts_test")["counts"] != run.table("counts_against")["counts"]).any(axis=1)
    for chunk in np.array_split(differs, 4):
        assert chunk.mean() > 0.5


def test_the_readout_is_trained_on_the_reference_alone(tmp_path: Path) -> None:
    """What the backend answers has no influence on the training, nor on what the reference counts."""
    a, run_a = compare(tmp_path, chip(noise={"relative": 0.15}), chip(), n_samples=30)
    b, run_b = compare(tmp_path, chip(seed=4), chip(), n_samples=30)
    with run_a, run_b:
        for table in ("counts_train", "counts_against"):
            np.testing.assert_array_equal(run_a.table(table)["counts"], run_b.table(table)["counts"])
    np.testing.assert_array_equal(a.chosen.readout.weight, b.chosen.readout.weight)
    np.testing.assert_array_equal(a.right_against, b.right_against)


def noisy_counts(noise: float, noise_against: float, other: float = 0.0) -> tuple[np.ndarray[Any, Any], ...]:
    """Counts of two backends, three repeats of 80 samples by 30 neurons; `other` is what their truths differ by."""
    rng = np.random.default_rng(7)
    truth = rng.normal(10.0, 3.0, (80, 30))
    changed = truth + other * rng.standard_normal(truth.shape)
    return (
        changed + noise * rng.standard_normal((3, 80, 30)),
        truth + noise_against * rng.standard_normal((3, 80, 30)),
    )


def test_correlation_without_noise_is_recovered_from_noisy_counts() -> None:
    """Reliability is the variance of the truth over all variance: 9 / (9 + noise squared)."""
    found = CountAgreement.of(*noisy_counts(1.0, 2.0), seed=0)
    assert found.repeat_correlation == pytest.approx(0.9, abs=0.01)
    assert found.repeat_correlation_against == pytest.approx(9 / 13, abs=0.02)
    assert found.cross_correlation == pytest.approx(np.sqrt(0.9 * 9 / 13), abs=0.02)
    assert found.corrected_correlation == pytest.approx(1.0, abs=0.01)
    low, high = found.corrected_correlation_interval or (1.0, 0.0)
    assert low < 1.0 < high
    assert high - low < 0.03
    assert found.mean_count_correlation is not None
    assert found.cross_correlation < found.mean_count_correlation < 1.0  # type: ignore[operator]


def test_what_is_no_noise_stays_a_difference() -> None:
    found = CountAgreement.of(*noisy_counts(1.0, 1.0, other=1.0), seed=0)
    assert found.corrected_correlation == pytest.approx(np.sqrt(0.9), abs=0.01)
    assert (found.corrected_correlation_interval or (0.0, 1.0))[1] < 0.97
    assert not found.agrees


def test_correlations_of_repeats_are_those_of_numpy() -> None:
    a, b = noisy_counts(1.0, 2.0)
    found = CountAgreement.of(a, b, seed=0)
    own = np.mean([np.corrcoef(a[i].ravel(), a[j].ravel())[0, 1] for i, j in ((0, 1), (0, 2), (1, 2))])
    cross = np.mean([np.corrcoef(x.ravel(), y.ravel())[0, 1] for x in a for y in b])
    means = np.corrcoef(a.mean(axis=0).ravel(), b.mean(axis=0).ravel())[0, 1]
    assert found.repeat_correlation == pytest.approx(own)
    assert found.cross_correlation == pytest.approx(cross)
    assert found.mean_count_correlation == pytest.approx(means)


def test_counts_that_never_vary_have_no_correlation() -> None:
    _, b = noisy_counts(1.0, 2.0)
    found = CountAgreement.of(np.full_like(b, 3.0), b, seed=0)
    assert found.repeat_correlation is None
    assert found.cross_correlation is None
    assert found.corrected_correlation is None
    assert found.corrected_correlation_interval is None
    assert not found.agrees


def test_repeats_show_what_noise_does(tmp_path: Path) -> None:
    """A chip against itself agrees but for noise; another chip does not."""
    noise = {"relative": 0.15}
    same, run = compare(tmp_path, chip(noise=noise), chip(noise=noise), n_samples=60, repeats=3)
    other, other_run = compare(tmp_path, chip(seed=4, noise=noise), chip(noise=noise), n_samples=60, repeats=3)
    other_run.close()
    assert same.repeated is not None
    assert other.repeated is not None
    assert same.repeated.corrected_correlation == pytest.approx(1.0, abs=0.02)
    assert (same.repeated.repeat_correlation or 1.0) < 0.97
    assert (other.repeated.corrected_correlation or 1.0) < 0.9
    drawn = draw_samples(200, 60, 5)
    with run:
        kept = run.table("counts_test")
        np.testing.assert_array_equal(kept["sample"], np.tile(drawn, 3))
        counts = kept["counts"].reshape(3, 60, N_NEURONS)
        against = run.table("counts_against")["counts"].reshape(3, 60, N_NEURONS)
        summary = run.results["summary"]
        right = run.results["predicted"] == drawn % 3
    assert CountAgreement.of(counts, against, 5) == same.repeated
    assert Agreement.of(counts[0], against[0]) == same.agreement
    # Every repeat has noise of its own, on either side and between the sides.
    passes = [*counts, *against]
    for k, one in enumerate(passes):
        for another in passes[k + 1 :]:
            assert (one != another).any(axis=1).mean() > 0.5
    # The reference rehearsed all that the backend does, so that no noise can be drawn twice.
    n_vmm, n_against = (summary[name]["vmm_count"] for name in ("telemetry", "telemetry_against"))
    assert n_against == 2 * n_vmm + 60 * N_STEPS
    assert summary["n_repeats"] == 3
    assert summary["accuracy_by_repeat"] == pytest.approx(right.mean(axis=1).tolist())
    assert summary["accuracy_pooled"] == pytest.approx(right.mean())
    low, high = summary["accuracy_pooled_difference_interval"]
    assert low <= summary["accuracy_pooled_difference"] <= high


def test_one_repeat_says_nothing_of_repeats(tmp_path: Path) -> None:
    outcome, run = compare(tmp_path, chip(), chip(), n_samples=12)
    with run:
        summary = run.results["summary"]
        assert run.results["predicted"].shape == (12,)
    assert outcome.repeated is None
    assert not {"n_repeats", "corrected_correlation", "accuracy_pooled"} & set(summary)
    with pytest.raises(ConfigError, match="--repeats 0 is below 1"):
        compare(tmp_path, chip(), chip(), n_samples=12, repeats=0)
