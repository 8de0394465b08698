"""`hil lsm atv` and `hil lsm btv`: zero-shot retrieval by the LSM, by baselines, and on two backends side by side."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from hil.cli.calibration_note import calibration_note
from hil.cli.lsm_output import faults_rows, percent, save_figures, with_interval
from hil.cli.lsm_run import check_same_shape, few_threads, make_array, start_run, start_run_on_host
from hil.cli.terminal import print_table, progress_bars
from hil.errors import ConfigError
from hil.progress import Progress

if TYPE_CHECKING:
    from hil.fault_map import FaultMap

#: what the paper reports: (seen, unseen) by experiment and model; all of them by its own protocol
PAPER = {
    ("atv", "lsm"): "67.42 % seen, 87.5 % unseen on the chip",
    ("atv", "srnn-clip"): "82.28 % seen, 74.0 % unseen",
    ("atv", "lsm-proto"): "50.25 % seen, 81.69 % unseen",
    ("atv", "srnn-proto"): "50.25 % seen, 82.14 % unseen",
    ("btv", "lsm"): "52.27 % seen, 70.83 % unseen, in software",
    ("btv", "srnn-clip"): "21.52 % seen, 61.67 % unseen (64 outputs)",
}
#: sections of the two data sets, queries first
_SECTIONS = {"atv": ("audio", "vision"), "btv": ("brain", "letters")}


def _load_pair(name: str, settings: Any, progress: Progress) -> tuple[Any, Any]:
    from experiments.datasets.families import load

    query, gallery = (load(family, settings, progress) for family in _SECTIONS[name])
    return query, gallery


def run_atv(
    settings: Any, model: str, backend_name: str, fault_map: FaultMap | None, seed: int, chip_seed: int, out: Path
) -> dict[str, Any]:
    """Both modalities on one tile; what came out, as JSON can hold it."""
    from experiments.lsm import atv
    from hil.session import open_session

    array = make_array(backend_name, settings, chip_seed)
    with progress_bars() as progress:
        audio, vision = _load_pair("atv", settings, progress)
        with few_threads(settings):
            tables = atv.tables(settings.lsm.n_neurons)
            run_file = start_run(out, "lsm-atv", tables, settings, array, array.identity, seed)
            with run_file, open_session(array.backend, array.limits) as session:
                outcome = atv.run(
                    session,
                    audio,
                    vision,
                    settings,
                    run_file,
                    model=model,
                    seed=seed,
                    fault_map=fault_map,
                    progress=progress,
                )
    return {
        "experiment": "lsm atv",
        **_who(array, seed, chip_seed),
        **outcome.summary,
        "run_file": str(run_file.path),
        "figures": save_figures(outcome.figures, run_file.path.with_suffix("")),
    }


def compare_atv(
    settings: Any,
    backend_name: str,
    against_name: str,
    fault_map: FaultMap | None,
    n_samples: int,
    seed: int,
    chip_seed: int,
    out: Path,
) -> dict[str, Any]:
    """Two backends on the same pairs; what came out, as JSON can hold it."""
    from experiments.lsm import atv_side_by_side
    from hil.session import open_session

    if n_samples < 1:
        raise ConfigError(f"--samples {n_samples} is below 1", fix="compare at least one pair")
    array = make_array(backend_name, settings, chip_seed)
    # Behind a daemon the chip may have been drawn by another seed: the same chip is what can be compared.
    chip_seed = array.identity.get("seed", chip_seed)
    against = make_array(against_name, settings, chip_seed)
    check_same_shape(array, against)
    with progress_bars() as progress:
        audio, vision = _load_pair("atv", settings, progress)
        with few_threads(settings):
            tables = atv_side_by_side.tables(settings.lsm.n_neurons)
            reference_identity = {**against.identity, "calibration": against.backend.info.calibration_id}
            identity = {**array.identity, "against": reference_identity}
            run_file = start_run(out, "lsm-atv-compare", tables, settings, array, identity, seed)
            # One inside the other, so that each array ends at zero bias whatever happens to the other.
            with (
                run_file,
                open_session(against.backend, against.limits) as reference,
                open_session(array.backend, array.limits) as session,
            ):
                outcome = atv_side_by_side.run(
                    session,
                    reference,
                    audio,
                    vision,
                    settings,
                    run_file,
                    n_samples=n_samples,
                    seed=seed,
                    fault_map=fault_map,
                    progress=progress,
                )
    return {
        "experiment": "lsm atv compare",
        **_who(array, seed, chip_seed),
        "against": against.shown,
        "calibration_against": against.backend.info.calibration_id,
        "calibration_text_against": calibration_note(against.backend.info),
        **outcome.summary,
        "run_file": str(run_file.path),
        "figures": save_figures(outcome.figures, run_file.path.with_suffix("")),
    }


def run_btv(settings: Any, model: str, backend_name: str, seed: int, chip_seed: int, out: Path) -> dict[str, Any]:
    """The network over several macros; what came out, as JSON can hold it."""
    from experiments.lsm import btv
    from hil.session import open_session

    # Each seed with chips of its own.
    first = chip_seed * settings.btv.macros
    macros = [make_array(backend_name, settings, first + k) for k in range(settings.btv.macros)]
    tiled = btv.make_tiled([macro.backend for macro in macros], settings)
    identity = {"name": macros[0].name, "kind": macros[0].backend.info.name, **tiled.info.identity}
    with progress_bars() as progress:
        brain, letters = _load_pair("btv", settings, progress)
        with few_threads(settings):
            run_file = start_run(out, "lsm-btv", btv.tables(settings), settings, macros[0], identity, seed)
            with run_file, open_session(tiled, macros[0].limits) as session:
                outcome = btv.run(
                    session, brain, letters, settings, run_file, model=model, seed=seed, progress=progress
                )
    return {
        "experiment": "lsm btv",
        **_who(macros[0], seed, chip_seed),
        "macros": len(tiled.info.identity["macros"]),
        **outcome.summary,
        "run_file": str(run_file.path),
        "figures": save_figures(outcome.figures, run_file.path.with_suffix("")),
    }


def train_baseline(name: str, settings: Any, model: str, seed: int, out: Path) -> dict[str, Any]:
    """Train a baseline on the host; what came out, as JSON can hold it."""
    from experiments.baselines import zero_shot

    if model not in zero_shot.MODELS:
        known = ("lsm", "lsm-proto", *zero_shot.MODELS)
        raise ConfigError(f"unknown model {model!r}", fix=f"choose one of: {', '.join(known)}")
    with progress_bars() as progress:
        query, gallery = _load_pair(name, settings, progress)
        run_file = start_run_on_host(out, f"lsm-{name}", zero_shot.tables(), settings, seed)
        with few_threads(settings), run_file:
            outcome = zero_shot.run(query, gallery, model, name, settings, run_file, seed=seed, progress=progress)
    return {
        "experiment": f"lsm {name}",
        "backend": "none: trained on the host",
        "seed": seed,
        **outcome.summary,
        "run_file": str(run_file.path),
        "figures": save_figures(outcome.figures, run_file.path.with_suffix("")),
    }


def show(result: dict[str, Any]) -> None:
    """Print one run."""
    name = result["experiment"].split()[1]
    honest, paper = result["honest"], result["paper"]
    chance = result["chance"]
    rows = [
        ("queries", result["query"]["data_source"]),
        ("gallery", result["gallery"]["data_source"]),
        ("seen classes", f"{_listed(name, result['seen_classes'])}; {result['n_train_pairs']} training pairs"),
        ("unseen classes", _listed(name, result["unseen_classes"])),
        *_where_rows(result),
        *faults_rows(result),
        ("seen, honest protocol", f"{_scored(honest['seen'])}; chance {percent(chance['seen'])}"),
        ("unseen, honest protocol", _unseen_text(honest["unseen"], chance["unseen"])),
        *_shot_rows(result.get("shots") or {}),
        *_window_rows(result.get("windows")),
        ("seen, paper protocol", percent(paper["seen"]["accuracy"])),
        ("unseen, paper protocol", f"{percent(paper['unseen']['accuracy'])}   {_gates(paper)}"),
        (f"the paper, {result['model']}", PAPER.get((name, result["model"]), "not reported")),
        ("time", f"{result['wall_s']:.1f} s"),
    ]
    for part in ("query", "gallery"):
        if result[part]["data_note"]:
            rows.insert(2, (f"note, {part}", result[part]["data_note"]))
    print_table(f"Zero-shot retrieval, model {result['model']}", ("what", "value"), rows)


def show_compared(result: dict[str, Any]) -> None:
    """Print two backends side by side."""
    backend, against = result["backend"], f"reference {result['against']}"
    rows = [
        ("queries", result["query"]["data_source"]),
        ("gallery", result["gallery"]["data_source"]),
        ("test pairs", str(result["n_samples"])),
        *_where_rows(result),
        (
            "against",
            f"{result['against']}, seed {result['chip_seed']}, calibration: {result['calibration_text_against']}",
        ),
        *faults_rows(result),
    ]
    for group in ("seen", "unseen"):
        rows.append((f"{group}, {backend}", _scored(result["honest"][group])))
        rows.append((f"{group}, {against}", _scored(result["honest_against"][group])))
    rows.append(
        (
            "difference",
            with_interval(result["accuracy_difference"], result["accuracy_difference_interval"], sign=True),
        )
    )
    for side, agreement in result["agreement"].items():
        value = agreement["count_correlation"]
        text = "not defined: the counts do not vary" if value is None else f"{value:.4f}"
        rows.append((f"count correlation, {side}", text))
    rows += [(f"{backend}: {key}", f"{value:g}") for key, value in result["telemetry"].items() if value]
    rows.append(("time", f"{result['wall_s']:.1f} s"))
    print_table("Zero-shot retrieval, two backends side by side", ("what", "value"), rows)


def _who(array: Any, seed: int, chip_seed: int) -> dict[str, Any]:
    return {
        "backend": array.shown,
        "calibration": array.backend.info.calibration_id,
        "calibration_text": calibration_note(array.backend.info),
        "seed": seed,
        "chip_seed": chip_seed,
    }


def _where_rows(result: dict[str, Any]) -> list[tuple[str, str]]:
    if "chip_seed" not in result:
        return [("where", result["backend"])]
    macros = f", macros: {result['macros']}" if "macros" in result else ""
    text = f"{result['backend']}{macros}, seed {result['chip_seed']}, calibration: {result['calibration_text']}"
    return [("backend", text)]


def _listed(name: str, classes: list[int]) -> str:
    """Classes as people call them: digits, or letters."""
    return ", ".join(chr(ord("a") + label) if name == "btv" else str(label) for label in classes)


def _scored(group: dict[str, Any]) -> str:
    return f"{with_interval(group['accuracy'], group['interval'])}; reverse {percent(group['reverse_accuracy'])}"


def _unseen_text(group: dict[str, Any], chance: float) -> str:
    """Without an interval over queries: those of a class go right or wrong together, so that it would mislead."""
    both = f"{percent(group['accuracy'])}; reverse {percent(group['reverse_accuracy'])}; chance {percent(chance)}"
    return f"{both}; one run says little, see --seeds"


def _shot_rows(shots: dict[str, Any]) -> list[tuple[str, str]]:
    return [
        (f"... {k} labelled pair{'s' if k != '1' else ''}", percent(entry["accuracy"]))
        for k, entry in shots.items()
        if k != "0"
    ]


def _window_rows(windows: dict[str, Any] | None) -> list[tuple[str, str]]:
    """Brain to vision: what other choices of unseen letters give, which nobody chose by their result."""
    if windows is None:
        return []
    honest = windows["honest"]
    return [
        ("all windows, seen", percent(honest["seen"]["accuracy"])),
        (
            "all windows, unseen",
            f"{percent(honest['unseen']['accuracy'])}   chance {percent(windows['chance']['unseen'])}, "
            f"p = {honest['unseen']['p_value']:.2g}",
        ),
    ]


def _gates(paper: dict[str, Any]) -> str:
    if paper["gates_passed"]:
        return f"{paper['n_epochs_passing']} epochs pass the published gates, set on test data"
    return "no epoch passes the published gates"
