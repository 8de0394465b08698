"""Brain to vision on small simulated macros, tiled and used in turn."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest

from experiments.datasets import SpikeDataset, SpikeSet
from experiments.lsm import btv
from experiments.lsm.btv import BtvRunSettings, make_tiled
from experiments.lsm.btv_settings import BtvSettings
from experiments.lsm.principal import Components
from experiments.lsm.projection import Projection
from hil.lsm.readout import features_of
from hil.runfile import RunFile, RunReader, open_run
from hil.session import open_session
from hil.spikes import pack_bits
from sim_backend.backend import SimBackend
from sim_backend.settings import SimSettings

N_NEURONS = 20
SETTINGS = BtvRunSettings.model_validate(
    {
        "btv": {
            "n_neurons": N_NEURONS, "macros": 3, "seen": [0, 1, 3, 5], "unseen": [2, 4], "windows": [0, 3],
            "n_test_per_class": 4, "shots": [0, 2], "n_shot_draws": 2, "n_shot_pool": 5, "components": 4,
            "brain": {"v_threshold": 2.0, "const_per_us": 0.07}, "image": {"v_threshold": 2.0, "const_per_us": 0.07},
            "projection": {"outputs": 6, "epochs": 12, "batch": 8, "learning_rate": 0.01, "pairs_per_query": 2},
        }
    }
)  # fmt: skip


def dataset(name: str, n_inputs: int, n_steps: int, n_train: int, seed: int) -> SpikeDataset:
    """Letters of random spikes, each with rates of its own; the last takes no part."""
    rng = np.random.default_rng(seed)
    rates = 0.6 * rng.random((7, n_inputs))

    def split(n: int) -> SpikeSet:
        labels = np.arange(7 * n) % 7
        return SpikeSet(pack_bits(rng.random((7 * n, n_steps, n_inputs)) < rates[labels][:, None]), labels)

    return SpikeDataset(name, split(n_train), split(5), n_inputs, n_steps, 7, True, "made here")


BRAIN, LETTERS = dataset("cortex", 9, 20, 5, 0), dataset("pictures", 23, 12, 14, 1)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[btv.Outcome, RunReader]]:
    kept = RunFile.create(
        tmp_path_factory.mktemp("btv"), "lsm-btv", config={}, backend={}, calibration=None, seed=5, software={},
        tables=btv.tables(SETTINGS),
    )  # fmt: skip
    macros = [SimBackend(SimSettings(rows=16, cols=16), seed=k) for k in range(SETTINGS.btv.macros)]
    with kept, open_session(make_tiled(macros, SETTINGS, LETTERS.n_inputs)) as session:
        outcome = btv.run(session, BRAIN, LETTERS, SETTINGS, kept, seed=5)
    with open_run(kept.path) as reader:
        yield outcome, reader


def test_the_array_is_as_large_as_the_network_and_takes_no_macro_that_has_no_block() -> None:
    tiled = make_tiled([SimBackend(SimSettings(rows=16, cols=16)) for _ in range(20)], SETTINGS, LETTERS.n_inputs)
    assert tiled.info.shape == (48, 48), "23 + 20 rows, 20 pairs of columns"
    assert len(tiled.info.identity["macros"]) == 9


def test_every_sample_is_encoded_once_for_all_splits(finished: tuple[btv.Outcome, RunReader]) -> None:
    tables = {name: finished[1].table(f"counts_{name}") for name in ("brain_train", "image_train", "image_test")}
    np.testing.assert_array_equal(np.bincount(tables["brain_train"]["label"]), [5] * 6)
    # Two images for each of five trials.
    np.testing.assert_array_equal(np.bincount(tables["image_train"]["label"]), [10] * 6)
    np.testing.assert_array_equal(np.bincount(tables["image_test"]["label"]), [4] * 6)
    for table in tables.values():
        assert len(set(table["sample"])) == len(table["sample"])
        assert table["counts"].std(axis=0).any()


def test_splits_and_windows_are_reported_side_by_side(finished: tuple[btv.Outcome, RunReader]) -> None:
    outcome, reader = finished
    summary = reader.results["summary"]
    assert summary == outcome.summary
    unseen = [split["unseen_classes"] for split in summary["splits"]]
    assert unseen == [[2, 4], [0, 1], [3, 4]]
    for split in summary["splits"]:
        assert sorted([*split["seen_classes"], *split["unseen_classes"]]) == list(range(6))
        assert split["n_train_pairs"] == 40
    assert summary["honest"] == summary["splits"][0]["honest"]
    windows = summary["windows"]
    for protocol in ("honest", "paper"):
        single = [split[protocol]["unseen"]["accuracy"] for split in summary["splits"][1:]]
        found = windows[protocol]["unseen"]
        assert found["by_window"] == single
        assert found["accuracy"] == pytest.approx(np.mean(single))
        assert found["n_queries"] == 16
    best = windows["paper"]
    assert best["best_unseen_accuracy"] == max(best["unseen"]["by_window"])
    assert best["best_unseen_classes"] in unseen[1:]
    assert 0 < windows["honest"]["unseen"]["p_value"] <= 1
    every = [split["unseen_all_trials"] for split in summary["splits"]]
    assert [np.sum(one["confusion"]) for one in every] == [one["n_queries"] for one in every] == [18] * 3
    assert windows["unseen_all_trials"]["n_queries"] == 36
    assert windows["unseen_all_trials"]["accuracy"] == pytest.approx(np.mean([one["accuracy"] for one in every[1:]]))
    assert windows["honest"]["seen"]["accuracy"] > 0.5, "chance is 0.25"
    assert (summary["query"]["name"], summary["gallery"]["name"]) == ("brain", "image")
    assert summary["telemetry"]["macro_vmm_count"] > 3 * summary["telemetry"]["vmm_count"]
    assert 4e-6 < summary["weight_sigma_s"] < 9e-6
    assert {"splits", "tsne", "similarity"} < set(outcome.figures)


def test_the_projections_that_are_kept_are_single_layers_on_all_neurons(
    finished: tuple[btv.Outcome, RunReader],
) -> None:
    results = finished[1].results
    for side, table, n_steps in (("query", "brain", BRAIN.n_steps), ("gallery", "image", LETTERS.n_steps)):
        layer = Projection(*(results[f"{side}_projection_{part}"] for part in ("weight", "bias", "mean", "spread")))
        assert layer.weight.shape == (N_NEURONS, 6)
        assert np.linalg.matrix_rank(layer.weight, tol=1e-3) == SETTINGS.btv.components
        features = features_of(finished[1].table(f"counts_{table}_test")["counts"], n_steps)
        np.testing.assert_array_equal(results[f"{side}_features"], features)
        np.testing.assert_allclose(layer(features), results[f"{side}_embeddings"], atol=1e-5)


def test_windows_beyond_the_alphabet_are_refused() -> None:
    with pytest.raises(ValueError, match="a window of 4 of 26 letters starts at 0 to 22"):
        BtvSettings(windows=[0, 23])
    assert [split.unseen for split in BtvSettings(windows=[22]).splits] == [[18, 19, 20, 21], [22, 23, 24, 25]]


def test_components_hold_what_varies_and_fold_into_a_layer() -> None:
    rng = np.random.default_rng(0)
    features = (rng.standard_normal((30, 3)) @ rng.standard_normal((3, 50)) + 4).astype(np.float32)
    components = Components.of(features, 10, seed=0)
    assert components.axes.shape == (50, 3), "there are no more directions"
    reduced = components(features)
    standard = (features - components.mean) / components.spread
    np.testing.assert_allclose(reduced @ reduced.T, standard @ standard.T, atol=1e-2)
    layer = Projection(
        *(rng.standard_normal(shape).astype(np.float32) for shape in ((3, 4), 4, 3)), np.full(3, 2, np.float32)
    )
    np.testing.assert_allclose(components.folded(layer)(features), layer(reduced), atol=1e-4)
    strength = Components.of(features, 2, seed=1)(features).std(axis=0)
    assert strength.min() > 0.2 * strength.max(), "turned, so that no input is weak by itself"
