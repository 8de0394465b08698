"""`hil lsm`: LSM experiments."""

from __future__ import annotations

import json
import time
from collections.abc import Generator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Annotated, Any

import typer

from hil.cli.errors import reports_errors
from hil.cli.extras import require_sim
from hil.cli.options import BackendOption, ConfigOption, JsonOption, OutOption, SeedOption, SetOption
from hil.cli.terminal import print_json, print_table, progress_bars
from hil.errors import ConfigError, LimitError, RunFileError

app = typer.Typer(help="Liquid-state-machine experiments.", no_args_is_help=True, rich_markup_mode=None)

# \b: lines stay as they are
_EXAMPLES = """\b
Examples:
  hil lsm nmnist
  hil lsm nmnist --dataset nmnist --data nmnist.tar.gz --seed 3 --json
  hil lsm nmnist --set data.n_train=500 --set sim.noise.relative=0.05
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
    config: ConfigOption = None,
    overrides: SetOption = None,
    seed: SeedOption = 0,
    out: OutOption = Path("runs"),
    as_json: JsonOption = False,
) -> None:
    """Classify event-camera recordings of digits: spikes, LSM on the crossbar, counters, trained read-out.

    Without --dataset it uses data made by the project itself: scikit-learn's digits seen by a simulated event camera.
    """
    settings = _load(dataset, data, config, overrides)
    started = time.perf_counter()
    result = _run(settings, backend, seed, out)
    result["wall_s"] = round(time.perf_counter() - started, 2)
    if as_json:
        print_json(result)
    else:
        _print(result)


def _load(dataset: str | None, data: Path | None, config: Path | None, overrides: list[str] | None) -> Any:
    require_sim()
    from hil.cli.settings import load_settings

    texts = list(overrides or ())
    if dataset is not None:
        texts.append(f"data.dataset={_quoted(dataset)}")
    if data is not None:
        texts.append(f"data.path={_quoted(str(data))}")
    return load_settings(config, texts)


def _quoted(text: str) -> str:
    """As a TOML string, whose escapes are those of JSON."""
    return json.dumps(text, ensure_ascii=False)


def _run(settings: Any, backend_name: str, seed: int, out: Path) -> dict[str, Any]:
    from experiments.datasets import load_from_settings
    from experiments.lsm import supervised
    from hil.factory import create_backend
    from hil.lsm.encoder import torch_device
    from hil.provenance import software_versions
    from hil.runfile import RunFile
    from hil.session import check_voltage, open_session, tighten

    backend = create_backend(backend_name, settings, seed=seed)
    limits = tighten(backend.info.limits, settings.limits.over(backend.info.limits))
    # What can be refused is refused before data are generated and a run file exists.
    check_voltage("read voltage lsm.v_read_v =", settings.lsm.v_read_v, limits.v_read_max_v)
    if settings.lsm.engine == "torch":
        torch_device(settings.lsm.device)
    with progress_bars() as progress:
        samples = load_from_settings(settings.data, progress=progress)
        _check_fits(samples.n_inputs, settings.lsm.n_neurons, backend.info.shape)
        with _few_threads(settings):
            run_file = RunFile.create(
                out,
                "lsm-nmnist",
                config=settings.model_dump(mode="json"),
                backend={"name": backend_name, **backend.info.identity},
                calibration=backend.info.calibration_id,
                seed=seed,
                software=software_versions(),
                tables=supervised.tables(settings.lsm.n_neurons),
            )
            with run_file, open_session(backend, limits) as session:
                outcome = supervised.run(session, samples, settings, run_file, seed=seed, progress=progress)
    return {
        "experiment": "lsm nmnist",
        "backend": backend_name,
        "calibration": backend.info.calibration_id,
        "seed": seed,
        **supervised.summary(outcome, samples),
        "run_file": str(run_file.path),
        "figures": _save_figures(outcome.figures, run_file.path.with_suffix("")),
    }


def _check_fits(n_inputs: int, n_neurons: int, shape: tuple[int, int]) -> None:
    from hil.lsm.encoder import lsm_tile

    try:
        lsm_tile(n_inputs, n_neurons).check_fits(shape)
    except LimitError as error:
        most = min(shape[0] - n_inputs, shape[1] // 2)
        raise ConfigError(
            f"a network of lsm.n_neurons = {n_neurons} and {n_inputs} inputs does not fit: {error.what}",
            fix=f"use at most {most} neurons" if most > 0 else "use a larger array (sim.rows, sim.cols)",
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


def _print(result: dict[str, Any]) -> None:
    def percent(value: float) -> str:
        return f"{100 * value:.2f} %"

    low, high = result["accuracy_interval"]
    rows = [
        ("data", f"{result['data_source']}"),
        ("samples", f"{result['n_train']} for training, {result['n_test']} for testing"),
        ("backend", f"{result['backend']}, seed {result['seed']}, calibration: {result['calibration'] or 'none'}"),
        ("honest protocol", f"{percent(result['honest_accuracy'])}   95 % interval {percent(low)} to {percent(high)}"),
        ("paper protocol", f"{percent(result['paper_accuracy'])}   best epoch chosen on the test data, as published"),
        ("the paper, N-MNIST", "89.66 % on the chip, 89.11 % in software (paper protocol)"),
        ("spikes", f"{percent(result['spike_rate_per_step'])} of all neuron steps"),
        ("time", f"{result['wall_s']:.1f} s"),
    ]
    if result["data_note"]:
        rows.insert(2, ("note", result["data_note"]))
    print_table("Liquid state machine, supervised", ("what", "value"), rows)
    # Outside the table, which would break a path that is longer than the terminal is wide.
    typer.echo(f"run file: {result['run_file']}")
    for path in result["figures"]:
        typer.echo(f"figure:   {path}")
