"""`hil lsm`: LSM experiments."""

from __future__ import annotations

import json
import time
from collections.abc import Generator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from hil.backend import CrossbarBackend, Limits
from hil.cli.errors import reports_errors
from hil.cli.extras import require_sim
from hil.cli.options import BackendOption, ConfigOption, JsonOption, OutOption, SeedOption, SetOption
from hil.cli.terminal import print_json, print_table, progress_bars
from hil.errors import CapabilityError, ConfigError, LimitError, RunFileError
from hil.progress import Progress

if TYPE_CHECKING:
    from hil.fault_map import FaultMap

app = typer.Typer(help="Liquid-state-machine experiments.", no_args_is_help=True, rich_markup_mode=None)

# \b: lines stay as they are
_EXAMPLES = """\b
Examples:
  hil lsm nmnist
  hil lsm nmnist --dataset nmnist --data nmnist.tar.gz --seed 3 --json
  hil lsm nmnist --set data.n_train=500 --set sim.noise.relative=0.05
  hil lsm nmnist --backend emulator --samples 20
  hil lsm nmnist --faults faults.npz
"""


@app.callback()
def lsm() -> None:
    """Liquid-state-machine experiments."""


@app.command("nmnist", epilog=_EXAMPLES)
@reports_errors
def nmnist(
    dataset: Annotated[
        str | None,
        typer.Option("--dataset", help="digits-saccade (default), mnist-saccade or nmnist.", metavar="NAME"),
    ] = None,
    data: Annotated[Path | None, typer.Option("--data", help="File or folder of the data set.", metavar="PATH")] = None,
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
    """
    if samples is None and against is not None:
        raise ConfigError(f"--against {against} says nothing without --samples", fix="add --samples N, such as 32")
    settings = _load(dataset, data, config, overrides)
    fault_map = None if faults is None else _load_faults(faults)
    started = time.perf_counter()
    if samples is None:
        result, show = _classify(settings, backend, fault_map, seed, out), _print_classified
    else:
        result = _compare(settings, backend, against or "sim", fault_map, samples, seed, out)
        show = _print_compared
    result["wall_s"] = round(time.perf_counter() - started, 2)
    if as_json:
        print_json(result)
    else:
        show(result)
        # Outside the table, which would break a path that is longer than the terminal is wide.
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


@dataclass(frozen=True)
class _Array:
    """A backend that is not open yet, and what its session may do."""

    name: str
    backend: CrossbarBackend
    limits: Limits

    @property
    def identity(self) -> dict[str, Any]:
        """As a run file keeps it; `kind` says what answers behind a URL."""
        return {"name": self.name, "kind": self.backend.info.name, **self.backend.info.identity}

    @property
    def shown(self) -> str:
        """Its name, for people."""
        kind = self.backend.info.name
        return self.name if kind == self.name else f"{self.name} ({kind})"


def _classify(settings: Any, backend_name: str, fault_map: FaultMap | None, seed: int, out: Path) -> dict[str, Any]:
    from experiments.lsm import supervised
    from hil.session import open_session

    array = _array(backend_name, settings, seed)
    with progress_bars() as progress:
        dataset = _dataset(settings, [array], fault_map, seed, progress)
        with _few_threads(settings):
            tables = supervised.tables(settings.lsm.n_neurons)
            run_file = _run_file(out, "lsm-nmnist", tables, settings, array, array.identity, seed)
            with run_file, open_session(array.backend, array.limits) as session:
                outcome = supervised.run(
                    session, dataset, settings, run_file, seed=seed, fault_map=fault_map, progress=progress
                )
    return {
        "experiment": "lsm nmnist",
        "backend": array.shown,
        "calibration": array.backend.info.calibration_id,
        "seed": seed,
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
    seed: int,
    out: Path,
) -> dict[str, Any]:
    from experiments.lsm import side_by_side
    from hil.session import open_session

    if n_samples < 1:
        raise ConfigError(f"--samples {n_samples} is below 1", fix="compare at least one test recording")
    array = _array(backend_name, settings, seed)
    # Behind a daemon the chip may have been drawn by another seed: the same chip is what can be compared.
    chip_seed = array.identity.get("seed", seed)
    against = _array(against_name, settings, chip_seed)
    _check_same_shape(array, against)
    with progress_bars() as progress:
        dataset = _dataset(settings, [array, against], fault_map, seed, progress)
        side_by_side.draw_samples(len(dataset.test), n_samples, seed)
        with _few_threads(settings):
            tables = side_by_side.tables(settings.lsm.n_neurons)
            reference_identity = {**against.identity, "calibration": against.backend.info.calibration_id}
            identity = {**array.identity, "against": reference_identity}
            run_file = _run_file(out, "lsm-nmnist-compare", tables, settings, array, identity, seed)
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
                    fault_map=fault_map,
                    progress=progress,
                )
    return {
        "experiment": "lsm nmnist compare",
        "backend": array.shown,
        "against": against.shown,
        "calibration": array.backend.info.calibration_id,
        "calibration_against": against.backend.info.calibration_id,
        "seed": seed,
        "chip_seed": chip_seed,
        **side_by_side.summary(outcome, dataset),
        "run_file": str(run_file.path),
        "figures": _save_figures(outcome.figures, run_file.path.with_suffix("")),
    }


def _array(name: str, settings: Any, seed: int) -> _Array:
    """Make a backend. What can be refused is refused before data are generated and a run file exists."""
    from hil.factory import create_backend
    from hil.lsm.encoder import torch_device
    from hil.session import check_voltage, tighten

    backend = create_backend(name, settings, seed=seed)
    limits = tighten(backend.info.limits, settings.limits.over(backend.info.limits))
    check_voltage("read voltage lsm.v_read_v =", settings.lsm.v_read_v, limits.v_read_max_v)
    if settings.lsm.engine == "torch":
        torch_device(settings.lsm.device)
        if not backend.info.capabilities.tensors:
            raise CapabilityError(
                f"lsm.engine = 'torch' needs a backend that takes tensors; {name!r} does not",
                fix="use --set lsm.engine=numba",
            )
    return _Array(name, backend, limits)


def _dataset(settings: Any, arrays: list[_Array], fault_map: FaultMap | None, seed: int, progress: Progress) -> Any:
    """Load the data, and refuse what does not go with them."""
    from experiments.datasets import load_from_settings
    from experiments.lsm.protocols import split_validation

    if fault_map is not None:
        # The arrays have one shape.
        fault_map.check_shape(arrays[0].backend.info.shape, "the map of --faults")
    dataset = load_from_settings(settings.data, progress=progress)
    for array in arrays:
        _check_fits(dataset.n_inputs, settings.lsm.n_neurons, array.backend.info.shape, fault_map)
    # Needed much later, but a set too small for it is known now.
    split_validation(dataset.train.labels, settings.readout.validation_fraction, seed)
    return dataset


def _run_file(
    out: Path, experiment: str, tables: Any, settings: Any, array: _Array, identity: dict[str, Any], seed: int
) -> Any:
    from hil.provenance import software_versions
    from hil.runfile import RunFile

    return RunFile.create(
        out,
        experiment,
        config=settings.model_dump(mode="json"),
        backend=identity,
        calibration=array.backend.info.calibration_id,
        seed=seed,
        software=software_versions(),
        tables=tables,
    )


def _check_same_shape(array: _Array, against: _Array) -> None:
    """Neuron by neuron, counts can be compared where both arrays have the same cells."""
    shapes = {a.name: a.backend.info.shape for a in (array, against)}
    if len(set(shapes.values())) > 1:
        texts = [f"{name} has {rows} x {cols}" for name, (rows, cols) in shapes.items()]
        raise ConfigError(
            f"arrays of different size are different chips: {', '.join(texts)}",
            fix="set sim.rows and sim.cols to the size that board.profile states",
        )


def _check_fits(n_inputs: int, n_neurons: int, shape: tuple[int, int], fault_map: FaultMap | None) -> None:
    from hil.fault_map import FaultMap
    from hil.lsm.encoder import lsm_tile
    from hil.placement import usable_lines

    try:
        lsm_tile(n_inputs, n_neurons, fault_map).check_fits(shape)
    except LimitError as error:
        rows, n_pairs = usable_lines(fault_map or FaultMap.healthy_array(shape))
        most = min(len(rows) - n_inputs, n_pairs)
        raise ConfigError(
            f"a network of lsm.n_neurons = {n_neurons} and {n_inputs} inputs does not fit: {error.what}",
            fix=f"use at most {most} neurons"
            if most > 0
            else "use a larger array (sim.rows, sim.cols) or board (board.profile)",
        ) from None


@contextmanager
def _few_threads(settings: Any) -> Generator[None, None, None]:
    """One thread for BLAS, OpenMP and torch: two have little to do here and wait for each other at every step.

    Where another job uses the machine, t-SNE and the read-out took fifty times longer on two. The simulator's own
    kernels keep their threads, and so does the torch engine.
    """
    if settings.lsm.engine == "torch":
        yield
        return
    import sklearn.manifold  # pyright: ignore[reportUnusedImport]  # noqa: F401 - a library not yet loaded stays as it is
    import torch
    from threadpoolctl import threadpool_limits

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with threadpool_limits(1):
            yield
    finally:
        torch.set_num_threads(before)


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
    return [("faulty cells in the tile", text), ("avoided", avoided)]


def _print_classified(result: dict[str, Any]) -> None:
    rows = [
        ("data", f"{result['data_source']}"),
        ("samples", f"{result['n_train']} for training, {result['n_test']} for testing"),
        ("backend", f"{result['backend']}, seed {result['seed']}, calibration: {result['calibration'] or 'none'}"),
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


def _print_compared(result: dict[str, Any]) -> None:
    def correlation(value: float | None) -> str:
        return "not defined: the counts do not vary" if value is None else f"{value:.4f}"

    backend, against = result["backend"], f"reference {result['against']}"
    rows = [
        ("data", f"{result['data_source']}"),
        ("samples", f"{result['n_train']} for training, {result['n_samples']} of {result['n_test']} for comparing"),
        ("backend", f"{backend}, seed {result['seed']}, calibration: {result['calibration'] or 'none'}"),
        (
            "against",
            f"{result['against']}, seed {result['chip_seed']}, calibration: {result['calibration_against'] or 'none'}",
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
        ("mean count", f"{result['count_mean']:.3f}   {result['count_mean_difference']:+.3f} to the reference"),
        *((f"{backend}: {key}", f"{value:g}") for key, value in result["telemetry"].items() if value),
        ("time", f"{result['wall_s']:.1f} s"),
    ]
    if result["data_note"]:
        rows.insert(2, ("note", result["data_note"]))
    print_table("Liquid state machine, two backends side by side", ("what", "value"), rows)
