"""`hil lsm`: LSM experiments."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from hil.cli.calibration_note import calibration_note, placement_map
from hil.cli.errors import reports_errors
from hil.cli.extras import require_sim
from hil.cli.lsm_run import check_same_shape, few_threads, load_dataset, make_array, start_run
from hil.cli.options import (
    BackendOption,
    CalibrationOption,
    ChipSeedOption,
    ConfigOption,
    JsonOption,
    OutOption,
    SeedOption,
    SetOption,
    with_calibration,
)
from hil.cli.terminal import print_json, print_table, progress_bars
from hil.errors import ConfigError, RunFileError

if TYPE_CHECKING:
    from hil.fault_map import FaultMap

app = typer.Typer(help="Liquid-state-machine experiments.", no_args_is_help=True, rich_markup_mode=None)

DatasetOption = Annotated[
    str | None,
    typer.Option("--dataset", help="digits-saccade (default), mnist-saccade or nmnist.", metavar="NAME"),
]
DataOption = Annotated[Path | None, typer.Option("--data", help="File or folder of the data set.", metavar="PATH")]

# \b: lines stay as they are
_EXAMPLES = """\b
Examples:
  hil lsm nmnist
  hil lsm nmnist --dataset nmnist --data nmnist.tar.gz --seed 3 --json
  hil lsm nmnist --set data.n_train=500 --set sim.noise.relative=0.05
  hil lsm nmnist --backend emulator --samples 20
  hil lsm nmnist --faults faults.npz
  hil lsm nmnist --backend emulator --samples 20 --repeats 4 --chip-seed 7
"""


@app.callback()
def lsm() -> None:
    """Liquid-state-machine experiments."""


@app.command("nmnist", epilog=_EXAMPLES)
@reports_errors
def nmnist(
    dataset: DatasetOption = None,
    data: DataOption = None,
    backend: BackendOption = "sim",
    samples: Annotated[
        int | None,
        typer.Option("--samples", help="Compare --backend with --against on N test recordings.", metavar="N"),
    ] = None,
    against: Annotated[
        str | None,
        typer.Option("--against", help="With --samples: the backend to compare with; sim if left out.", metavar="NAME"),
    ] = None,
    faults: Annotated[
        Path | None,
        typer.Option(
            "--faults",
            help="Fault map of the array (.npz), or a run file (.h5) that holds one: the network avoids the faults.",
            metavar="FILE",
        ),
    ] = None,
    repeats: Annotated[
        int,
        typer.Option(
            "--repeats", help="With --samples: encode each recording N times, to know the noise.", metavar="N"
        ),
    ] = 1,
    calibration: CalibrationOption = None,
    chip_seed: ChipSeedOption = None,
    config: ConfigOption = None,
    overrides: SetOption = None,
    seed: SeedOption = 0,
    out: OutOption = Path("runs"),
    as_json: JsonOption = False,
) -> None:
    """Classify event-camera recordings of digits: spikes, LSM on the crossbar, counters, trained read-out.

    Without --dataset it uses data made by the project itself: scikit-learn's digits seen by a simulated event camera.

    With --samples it compares two backends: the read-out is trained on spike counts of --against, then N test
    recordings, drawn by the seed, are encoded by both. The seed is the same for both, so that simulated chips are the
    same; their noise is independent all the same. A backend against its own kind, such as sim against sim, therefore
    shows how far noise alone takes two runs apart.

    With --calibration the currents are those of the calibrated board, and the simulator is that of its chip. Without
    --faults the network then keeps away from lines that the calibration found dead.
    """
    if samples is None and against is not None:
        raise ConfigError(f"--against {against} says nothing without --samples", fix="add --samples N, such as 32")
    if samples is None and repeats != 1:
        raise ConfigError(f"--repeats {repeats} says nothing without --samples", fix="add --samples N, such as 32")
    settings = _load(dataset, data, config, with_calibration(overrides, calibration))
    fault_map = placement_map(settings) if faults is None else _load_faults(faults)
    drawn_by = seed if chip_seed is None else chip_seed
    started = time.perf_counter()
    if samples is None:
        result, show = _classify(settings, backend, fault_map, seed, drawn_by, out), _print_classified
    else:
        result = _compare(settings, backend, against or "sim", fault_map, samples, repeats, seed, drawn_by, out)
        show = _print_compared
    result["faults_from"] = str(faults) if faults is not None else "the calibration" if fault_map is not None else None
    result["wall_s"] = round(time.perf_counter() - started, 2)
    if as_json:
        print_json(result)
    else:
        show(result)
        # Outside the table, which would break a path that is longer than the terminal is wide.
        typer.echo(f"run file: {result['run_file']}")
        for path in result["figures"]:
            typer.echo(f"figure:   {path}")


@app.command(
    "transfer",
    epilog="\b\nExamples:\n  hil calibrate all --chip-seed 7\n"
    "  hil lsm transfer --chip-seed 7 --calibration runs/calibrations/emulated-7.h5 --train 50 --test 15",
)
@reports_errors
def transfer(
    dataset: DatasetOption = None,
    data: DataOption = None,
    backend: Annotated[
        str, typer.Option("--backend", help="The board: emulator, board, or a daemon's URL.", metavar="NAME")
    ] = "emulator",
    train: Annotated[int, typer.Option("--train", help="Training recordings.", metavar="N")] = 200,
    test: Annotated[int, typer.Option("--test", help="Test recordings.", metavar="N")] = 100,
    calibration: CalibrationOption = None,
    chip_seed: ChipSeedOption = None,
    config: ConfigOption = None,
    overrides: SetOption = None,
    seed: SeedOption = 0,
    out: OutOption = Path("runs"),
    as_json: JsonOption = False,
) -> None:
    """Train a read-out on the board and on its calibrated simulator, and test each on both.

    Four accuracies come out; where the simulator stands in for the board, all four agree.
    """
    settings = _load(dataset, data, config, with_calibration(overrides, calibration))
    if settings.calibration.file is None:
        raise ConfigError(
            "hil lsm transfer needs a calibration: without it the simulator is of no chip in particular",
            fix="add --calibration FILE; hil calibrate all makes one",
        )
    started = time.perf_counter()
    result = _transfer(settings, backend, train, test, seed, seed if chip_seed is None else chip_seed, out)
    result["wall_s"] = round(time.perf_counter() - started, 2)
    if as_json:
        print_json(result)
        return
    _print_transfer(result)
    typer.echo(f"run file: {result['run_file']}")
    for path in result["figures"]:
        typer.echo(f"figure:   {path}")


def _load(dataset: str | None, data: Path | None, config: Path | None, overrides: list[str] | None) -> Any:
    require_sim()
    from hil.cli.settings import load_settings

    texts = list(overrides or ())
    if dataset is not None:
        texts.append(f"data.dataset={_quoted(dataset)}")
    if data is not None:
        texts.append(f"data.path={_quoted(str(data))}")
    return load_settings(config, texts)


def _load_faults(path: Path) -> FaultMap:
    from hil.fault_map import FaultMap

    return FaultMap.load(path)


def _quoted(text: str) -> str:
    """As a TOML string, whose escapes are those of JSON."""
    return json.dumps(text, ensure_ascii=False)


def _classify(
    settings: Any, backend_name: str, fault_map: FaultMap | None, seed: int, chip_seed: int, out: Path
) -> dict[str, Any]:
    from experiments.lsm import supervised
    from hil.session import open_session

    array = make_array(backend_name, settings, chip_seed)
    with progress_bars() as progress:
        dataset = load_dataset(settings, [array], fault_map, seed, progress)
        with few_threads(settings):
            tables = supervised.tables(settings.lsm.n_neurons)
            run_file = start_run(out, "lsm-nmnist", tables, settings, array, array.identity, seed)
            with run_file, open_session(array.backend, array.limits) as session:
                outcome = supervised.run(
                    session, dataset, settings, run_file, seed=seed, fault_map=fault_map, progress=progress
                )
    return {
        "experiment": "lsm nmnist",
        "backend": array.shown,
        "calibration": array.backend.info.calibration_id,
        "calibration_text": calibration_note(array.backend.info),
        "seed": seed,
        "chip_seed": chip_seed,
        **supervised.summary(outcome, dataset),
        "run_file": str(run_file.path),
        "figures": _save_figures(outcome.figures, run_file.path.with_suffix("")),
    }


def _compare(
    settings: Any,
    backend_name: str,
    against_name: str,
    fault_map: FaultMap | None,
    n_samples: int,
    repeats: int,
    seed: int,
    chip_seed: int,
    out: Path,
) -> dict[str, Any]:
    from experiments.lsm import side_by_side
    from hil.session import open_session

    if n_samples < 1:
        raise ConfigError(f"--samples {n_samples} is below 1", fix="compare at least one test recording")
    array = make_array(backend_name, settings, chip_seed)
    # Behind a daemon the chip may have been drawn by another seed: the same chip is what can be compared.
    chip_seed = array.identity.get("seed", chip_seed)
    against = make_array(against_name, settings, chip_seed)
    check_same_shape(array, against)
    with progress_bars() as progress:
        dataset = load_dataset(settings, [array, against], fault_map, seed, progress)
        side_by_side.draw_samples(len(dataset.test), n_samples, seed)
        with few_threads(settings):
            tables = side_by_side.tables(settings.lsm.n_neurons)
            reference_identity = {**against.identity, "calibration": against.backend.info.calibration_id}
            identity = {**array.identity, "against": reference_identity}
            run_file = start_run(out, "lsm-nmnist-compare", tables, settings, array, identity, seed)
            # One inside the other, so that each array ends at zero bias whatever happens to the other.
            with (
                run_file,
                open_session(against.backend, against.limits) as reference,
                open_session(array.backend, array.limits) as session,
            ):
                outcome = side_by_side.run(
                    session,
                    reference,
                    dataset,
                    settings,
                    run_file,
                    n_samples=n_samples,
                    seed=seed,
                    repeats=repeats,
                    fault_map=fault_map,
                    progress=progress,
                )
    return {
        "experiment": "lsm nmnist compare",
        "backend": array.shown,
        "against": against.shown,
        "calibration": array.backend.info.calibration_id,
        "calibration_text": calibration_note(array.backend.info),
        "calibration_against": against.backend.info.calibration_id,
        "calibration_text_against": calibration_note(against.backend.info),
        "seed": seed,
        "chip_seed": chip_seed,
        **side_by_side.summary(outcome, dataset),
        "run_file": str(run_file.path),
        "figures": _save_figures(outcome.figures, run_file.path.with_suffix("")),
    }


def _transfer(
    settings: Any, backend_name: str, n_train: int, n_test: int, seed: int, chip_seed: int, out: Path
) -> dict[str, Any]:
    from experiments.lsm import transfer as chip_in_the_loop
    from hil.session import open_session

    fault_map = placement_map(settings)
    board = make_array(backend_name, settings, chip_seed)
    simulator = make_array("sim", settings, chip_seed)
    with progress_bars() as progress:
        dataset = load_dataset(settings, [board, simulator], fault_map, seed, progress)
        with few_threads(settings):
            tables = chip_in_the_loop.tables(settings.lsm.n_neurons)
            identity = {**board.identity, "simulator": simulator.identity}
            run_file = start_run(out, "lsm-transfer", tables, settings, board, identity, seed)
            with (
                run_file,
                open_session(simulator.backend, simulator.limits) as simulated,
                open_session(board.backend, board.limits) as session,
            ):
                outcome = chip_in_the_loop.run(
                    session,
                    simulated,
                    dataset,
                    settings,
                    run_file,
                    n_train=n_train,
                    n_test=n_test,
                    seed=seed,
                    fault_map=fault_map,
                    progress=progress,
                )
    return {
        "experiment": "lsm transfer",
        "backend": board.shown,
        "calibration": board.backend.info.calibration_id,
        "calibration_text": calibration_note(simulator.backend.info),
        "seed": seed,
        "chip_seed": chip_seed,
        **chip_in_the_loop.summary(outcome, dataset, n_train=n_train),
        "faults_from": None if fault_map is None else "the calibration",
        "run_file": str(run_file.path),
        "figures": _save_figures(outcome.figures, run_file.path.with_suffix("")),
    }


def _print_transfer(result: dict[str, Any]) -> None:
    typer.echo(f"board:       {result['backend']}, seed {result['chip_seed']}")
    typer.echo(f"calibration: {result['calibration_text']}")
    typer.echo(f"data:        {result['data_source']}")
    typer.echo(f"samples:     {result['n_train_drawn']} for training, {result['n_test_drawn']} for testing\n")
    by_side: dict[str, list[str]] = {}
    for cell in result["transfer"]:
        low, high = cell["accuracy_interval"]
        text = f"{_percent(cell['accuracy'])} ({100 * low:.1f} to {100 * high:.1f})"
        by_side.setdefault(cell["trained_on"], [f"trained on {cell['trained_on']}"]).append(text)
    header = ("", *(f"tested on {cell['tested_on']}" for cell in result["transfer"][: len(by_side)]))
    print_table("Accuracy, with its 95 % interval", header, [tuple(texts) for texts in by_side.values()])
    for one in result["lost_by_transfer"]:
        lost = _with_interval(one["accuracy_lost"], one["accuracy_lost_interval"], sign=True)
        low, high = one["accuracy_lost_interval"]
        verdict = "no more than chance" if low <= 0.0 <= high else "more than chance"
        typer.echo(f"on the {one['tested_on']}, training on the other costs {lost}: {verdict}")


def _save_figures(figures: dict[str, bytes], folder: Path) -> list[str]:
    """PNG files beside the run file, which holds them too."""
    paths = {folder / f"{name}.png": png for name, png in figures.items()}
    try:
        folder.mkdir(exist_ok=True)
        for path, png in paths.items():
            path.write_bytes(png)
    except OSError as error:
        for path in paths:
            with suppress(OSError):
                path.unlink(missing_ok=True)
        raise RunFileError(
            f"figures cannot be written to {folder}: {error.strerror}",
            fix="make room; the run file is complete and holds the figures too",
        ) from None
    return [str(path) for path in paths]


def _percent(value: float) -> str:
    return f"{100 * value:.2f} %"


def _with_interval(value: float, interval: list[float], *, sign: bool = False) -> str:
    low, high = (f"{100 * bound:{'+' if sign else ''}.2f} %" for bound in interval)
    return f"{100 * value:{'+' if sign else ''}.2f} %   95 % interval {low} to {high}"


def _faults_rows(result: dict[str, Any]) -> list[tuple[str, str]]:
    """What to say about faults: nothing without a fault map."""
    faults = result["faults"]
    if faults is None:
        return []
    kinds = ", ".join(f"{n} {name.replace('_', ' ')}" for name, n in faults["tile"].items() if n)
    text = f"{faults['tile_faulty']} of {faults['tile_cells']}{f'   ({kinds})' if kinds else ''}"
    avoided = f"{faults['rows_out']} rows and {faults['cols_out']} columns that are open or shorted"
    return [("faults known from", result["faults_from"]), ("faulty cells in the tile", text), ("avoided", avoided)]


def _print_classified(result: dict[str, Any]) -> None:
    rows = [
        ("data", f"{result['data_source']}"),
        ("samples", f"{result['n_train']} for training, {result['n_test']} for testing"),
        ("backend", f"{result['backend']}, seed {result['chip_seed']}, calibration: {result['calibration_text']}"),
        *_faults_rows(result),
        ("honest protocol", _with_interval(result["honest_accuracy"], result["accuracy_interval"])),
        ("paper protocol", f"{_percent(result['paper_accuracy'])}   best epoch chosen on the test data, as published"),
        ("the paper, N-MNIST", "89.66 % on the chip, 89.11 % in software (paper protocol)"),
        ("spikes", f"{_percent(result['spike_rate_per_step'])} of all neuron steps"),
        ("time", f"{result['wall_s']:.1f} s"),
    ]
    if result["data_note"]:
        rows.insert(2, ("note", result["data_note"]))
    print_table("Liquid state machine, supervised", ("what", "value"), rows)


def _repeats_rows(result: dict[str, Any], correlation: Callable[[float | None], str]) -> list[tuple[str, str]]:
    """What repeats tell: how well each agrees with itself, and what is left of the difference without noise."""
    if "n_repeats" not in result:
        return []
    interval = result["corrected_correlation_interval"]
    corrected = correlation(result["corrected_correlation"])
    if interval is not None:
        corrected += f"   95 % interval {interval[0]:.4f} to {interval[1]:.4f}"
    own = (result["repeat_correlation"], result["repeat_correlation_against"])
    return [
        ("... repeats of itself", " and ".join(correlation(value) for value in own) + "   backend and reference"),
        ("... without noise", corrected),
        (
            "difference, all repeats",
            _with_interval(
                result["accuracy_pooled_difference"], result["accuracy_pooled_difference_interval"], sign=True
            ),
        ),
    ]


def _print_compared(result: dict[str, Any]) -> None:
    def correlation(value: float | None) -> str:
        return "not defined: the counts do not vary" if value is None else f"{value:.4f}"

    backend, against = result["backend"], f"reference {result['against']}"
    rows = [
        ("data", f"{result['data_source']}"),
        ("samples", f"{result['n_train']} for training, {result['n_samples']} of {result['n_test']} for comparing"),
        ("backend", f"{backend}, seed {result['chip_seed']}, calibration: {result['calibration_text']}"),
        (
            "against",
            f"{result['against']}, seed {result['chip_seed']}, calibration: {result['calibration_text_against']}",
        ),
        *_faults_rows(result),
        (f"accuracy, {backend}", _with_interval(result["honest_accuracy"], result["accuracy_interval"])),
        (
            f"accuracy, {against}",
            _with_interval(result["honest_accuracy_against"], result["accuracy_interval_against"]),
        ),
        (
            "difference",
            _with_interval(result["accuracy_difference"], result["accuracy_difference_interval"], sign=True),
        ),
        ("count correlation", f"{correlation(result['count_correlation'])}   over all neurons and recordings"),
        (
            "... per neuron",
            f"{correlation(result['count_correlation_by_neuron'])}   mean of {result['n_neurons_correlated']} neurons",
        ),
        *_repeats_rows(result, correlation),
        ("mean count", f"{result['count_mean']:.3f}   {result['count_mean_difference']:+.3f} to the reference"),
        *((f"{backend}: {key}", f"{value:g}") for key, value in result["telemetry"].items() if value),
        ("time", f"{result['wall_s']:.1f} s"),
    ]
    if result["data_note"]:
        rows.insert(2, ("note", result["data_note"]))
    print_table("Liquid state machine, two backends side by side", ("what", "value"), rows)
