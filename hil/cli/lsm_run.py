"""What the commands that run the network share: arrays, data, run files, threads."""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hil.backend import CrossbarBackend, Limits
from hil.errors import CapabilityError, ConfigError, LimitError
from hil.progress import Progress

if TYPE_CHECKING:
    from hil.fault_map import FaultMap


@dataclass(frozen=True)
class Array:
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


def make_array(name: str, settings: Any, seed: int) -> Array:
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
    return Array(name, backend, limits)


def load_vision(settings: Any, progress: Progress) -> Any:
    from experiments.datasets import load_from_settings

    return load_from_settings(settings.data, progress=progress)


def load_dataset(
    settings: Any,
    arrays: list[Array],
    fault_map: FaultMap | None,
    seed: int,
    progress: Progress,
    load: Callable[[Any, Progress], Any] = load_vision,
) -> Any:
    """Load the data, and refuse what does not go with them."""
    from experiments.lsm.protocols import split_validation

    if fault_map is not None:
        # The arrays have one shape.
        fault_map.check_shape(arrays[0].backend.info.shape, "the map of --faults")
    dataset = load(settings, progress)
    for array in arrays:
        _check_fits(dataset.n_inputs, settings.lsm.n_neurons, array.backend.info.shape, fault_map)
    # Needed much later, but a set too small for it is known now.
    split_validation(dataset.train.labels, settings.readout.validation_fraction, seed)
    return dataset


def own_neurons(settings: Any, section: str, neurons: Any) -> Any:
    """Network settings with the neurons of an experiment, after refusing those meant for another.

    Raises:
        ConfigError: the user set neurons of `lsm`, which this experiment does not use.
    """
    for name in type(neurons).model_fields:
        if name in settings.lsm.model_fields_set:
            raise ConfigError(
                f"lsm.{name} is of hil lsm nmnist; this experiment has neurons of its own", fix=f"set {section}.{name}"
            )
    return neurons.of(settings.lsm)


def start_run(
    out: Path, experiment: str, tables: Any, settings: Any, array: Array, identity: dict[str, Any], seed: int
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


def start_run_on_host(out: Path, experiment: str, tables: Any, settings: Any, seed: int) -> Any:
    """A run that uses no array."""
    from hil.provenance import software_versions
    from hil.runfile import RunFile

    return RunFile.create(
        out,
        experiment,
        config=settings.model_dump(mode="json"),
        backend={"name": "none", "kind": "none"},
        calibration=None,
        seed=seed,
        software=software_versions(),
        tables=tables,
    )


def check_same_shape(array: Array, against: Array) -> None:
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
def few_threads(settings: Any) -> Generator[None, None, None]:
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
