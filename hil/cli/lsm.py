"""`hil lsm`: LSM experiments and the baselines they are compared with."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from hil.cli import lsm_supervised, lsm_transfer, lsm_zero_shot
from hil.cli.calibration_note import placement_map
from hil.cli.errors import reports_errors
from hil.cli.extras import require_sim
from hil.cli.lsm_output import print_result
from hil.cli.lsm_run import own_neurons
from hil.cli.lsm_seeds import run_seeds
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
from hil.errors import ConfigError

if TYPE_CHECKING:
    from hil.fault_map import FaultMap

app = typer.Typer(help="Liquid-state-machine experiments.", no_args_is_help=True, rich_markup_mode=None)

VisionOption = Annotated[
    str | None,
    typer.Option("--dataset", help="digits-saccade (default), mnist-saccade or nmnist.", metavar="NAME"),
]
AudioOption = Annotated[
    str | None,
    typer.Option("--dataset", help="digits-voices (default), spoken-digits or ntidigits.", metavar="NAME"),
]
DataOption = Annotated[Path | None, typer.Option("--data", help="File or folder of the data set.", metavar="PATH")]
PairDataOption = Annotated[
    Path | None, typer.Option("--data", help="Folder with the files of the data sets that need some.", metavar="PATH")
]
ModelOption = Annotated[
    str,
    typer.Option("--model", help="lsm, or a baseline: srnn-ann, srnn-snn, rnn (trained on the host).", metavar="NAME"),
]
ZeroShotModelOption = Annotated[
    str,
    typer.Option(
        "--model",
        help="lsm, lsm-proto (prototypes on the LSM's counts), or trained on the host: srnn-clip, srnn-proto.",
        metavar="NAME",
    ),
]
SamplesOption = Annotated[
    int | None,
    typer.Option("--samples", help="Compare --backend with --against on N test recordings.", metavar="N"),
]
AgainstOption = Annotated[
    str | None,
    typer.Option("--against", help="With --samples: the backend to compare with; sim if left out.", metavar="NAME"),
]
FaultsOption = Annotated[
    Path | None,
    typer.Option(
        "--faults",
        help="Fault map of the array (.npz), or a run file (.h5) that holds one: the network avoids the faults.",
        metavar="FILE",
    ),
]
RepeatsOption = Annotated[
    int,
    typer.Option("--repeats", help="With --samples: encode each recording N times, to know the noise.", metavar="N"),
]
SeedsOption = Annotated[
    int,
    typer.Option(
        "--seeds", help="Run N seeds from --seed on, each with a chip of its own; print the mean.", metavar="N"
    ),
]

# \b: lines stay as they are
_NMNIST_EXAMPLES = """\b
Examples:
  hil lsm nmnist
  hil lsm nmnist --dataset nmnist --data nmnist.tar.gz --seed 3 --json
  hil lsm nmnist --set data.n_train=500 --set sim.noise.relative=0.05
  hil lsm nmnist --backend emulator --samples 20
  hil lsm nmnist --faults faults.npz
  hil lsm nmnist --backend emulator --samples 20 --repeats 4 --chip-seed 7
  hil lsm nmnist --model srnn-ann
"""
_NTIDIGITS_EXAMPLES = """\b
Examples:
  hil lsm ntidigits
  hil lsm ntidigits --dataset spoken-digits --data recordings.tar.gz --seeds 3
  hil lsm ntidigits --backend emulator --samples 4
  hil lsm ntidigits --model rnn --json
"""
_ATV_EXAMPLES = """\b
Examples:
  hil lsm atv
  hil lsm atv --seeds 2 --json
  hil lsm atv --backend emulator --samples 9
  hil lsm atv --model lsm-proto --shots 0 --shots 5
"""
_BTV_EXAMPLES = """\b
Examples:
  hil lsm btv
  hil lsm btv --set btv.n_neurons=256 --set btv.macros=1 --json
"""


@app.callback()
def lsm() -> None:
    """Liquid-state-machine experiments."""


@app.command("nmnist", epilog=_NMNIST_EXAMPLES)
@reports_errors
def nmnist(
    dataset: VisionOption = None,
    data: DataOption = None,
    model: ModelOption = "lsm",
    backend: BackendOption = "sim",
    samples: SamplesOption = None,
    against: AgainstOption = None,
    faults: FaultsOption = None,
    repeats: RepeatsOption = 1,
    calibration: CalibrationOption = None,
    chip_seed: ChipSeedOption = None,
    config: ConfigOption = None,
    overrides: SetOption = None,
    seed: SeedOption = 0,
    seeds: SeedsOption = 1,
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

    With --model a network of the same shape, trained on the same data, takes the place of the LSM.
    """
    texts = _with_data("data", dataset, data, with_calibration(overrides, calibration))
    settings = _load(config, texts)
    _supervised(
        "nmnist", settings, model, backend, samples, against, faults, repeats, chip_seed, seed, seeds, out, as_json
    )


@app.command("ntidigits", epilog=_NTIDIGITS_EXAMPLES)
@reports_errors
def ntidigits(
    dataset: AudioOption = None,
    data: DataOption = None,
    model: ModelOption = "lsm",
    backend: BackendOption = "sim",
    samples: SamplesOption = None,
    against: AgainstOption = None,
    faults: FaultsOption = None,
    repeats: RepeatsOption = 1,
    calibration: CalibrationOption = None,
    chip_seed: ChipSeedOption = None,
    config: ConfigOption = None,
    overrides: SetOption = None,
    seed: SeedOption = 0,
    seeds: SeedsOption = 1,
    out: OutOption = Path("runs"),
    as_json: JsonOption = False,
) -> None:
    """Classify spoken digits heard by a cochlea of 64 channels: spikes, LSM on the crossbar, counters, read-out.

    Without --dataset it uses speech that the project synthesised itself. spoken-digits are wav files
    DIGIT_SPEAKER_TAKE.wav, heard by a model of the cochlea; ntidigits are recordings of a silicon cochlea
    (n-tidigits.hdf5). Where the data say who speaks, speakers that training never heard are scored, too.

    The network's constants are those of section ntidigits.neurons; all other options work as in hil lsm nmnist.
    """
    texts = _with_data("audio", dataset, data, with_calibration(overrides, calibration))
    settings = _load(config, texts)
    own = settings.model_copy(update={"lsm": own_neurons(settings, "ntidigits.neurons", settings.ntidigits.neurons)})
    _supervised(
        "ntidigits", own, model, backend, samples, against, faults, repeats, chip_seed, seed, seeds, out, as_json
    )


@app.command("atv", epilog=_ATV_EXAMPLES)
@reports_errors
def atv(
    audio: Annotated[
        str | None, typer.Option("--audio", help="digits-voices (default), spoken-digits or ntidigits.", metavar="NAME")
    ] = None,
    vision: Annotated[
        str | None,
        typer.Option("--vision", help="digits-saccade (default), mnist-saccade or nmnist.", metavar="NAME"),
    ] = None,
    data: PairDataOption = None,
    model: ZeroShotModelOption = "lsm",
    shots: Annotated[
        list[int] | None,
        typer.Option(
            "--shots", help="Labelled pairs of each unseen class; may be repeated. Default: 0 1 5 20.", metavar="K"
        ),
    ] = None,
    backend: BackendOption = "sim",
    samples: SamplesOption = None,
    against: AgainstOption = None,
    faults: FaultsOption = None,
    calibration: CalibrationOption = None,
    chip_seed: ChipSeedOption = None,
    config: ConfigOption = None,
    overrides: SetOption = None,
    seed: SeedOption = 0,
    seeds: SeedsOption = 1,
    out: OutOption = Path("runs"),
    as_json: JsonOption = False,
) -> None:
    """Find the picture of a digit by its spoken word (audio to vision): one LSM for both, contrastive projections.

    Digits 1 to 7 are learned as pairs of a word and a picture; 8 and 9 are never shown (zero-shot), except for the
    labelled pairs of --shots. A query is right when the picture that is most alike shows its digit.

    With --samples it compares two backends on N pairs, as hil lsm nmnist does on N recordings.
    """
    texts = _with_data("audio", audio, None, with_calibration(overrides, calibration))
    texts = _with_data("data", vision, None, texts)
    if shots:
        texts.append(f"atv.shots={json.dumps(shots)}")
    settings = _with_paths(_load(config, texts), ("audio", "data"), data)
    own_neurons(settings, "atv.image (or atv.audio)", settings.atv.image)
    if samples is not None and (model != "lsm" or shots):
        raise ConfigError("--samples compares the projections of model lsm", fix="leave out --model and --shots")
    if samples is None and against is not None:
        raise ConfigError(f"--against {against} says nothing without --samples", fix="add --samples N, such as 16")
    if model != "lsm" and settings.projection.model_fields_set:
        raise ConfigError(f"section projection is not used by model {model!r}", fix="set section baseline.atv")
    drawn_by = _array_only(model, ("lsm", "lsm-proto"), backend, samples, faults, chip_seed, settings)
    fault_map = _fault_map(faults, settings)

    def one(seed: int, chip_seed: int) -> dict[str, Any]:
        if samples is not None:
            return lsm_zero_shot.compare_atv(
                settings, backend, against or "sim", fault_map, samples, seed, chip_seed, out
            )
        if model in ("lsm", "lsm-proto"):
            return lsm_zero_shot.run_atv(settings, model, backend, fault_map, seed, chip_seed, out)
        return lsm_zero_shot.train_baseline("atv", settings, model, seed, out)

    show = lsm_zero_shot.show_compared if samples is not None else lsm_zero_shot.show
    _run(one, show, faults, fault_map, seed, seeds, drawn_by, as_json)


@app.command("btv", epilog=_BTV_EXAMPLES)
@reports_errors
def btv(
    brain: Annotated[
        str | None, typer.Option("--brain", help="letters-pen (default) or willett.", metavar="NAME")
    ] = None,
    letters: Annotated[
        str | None, typer.Option("--letters", help="letters-strokes (default) or emnist-letters.", metavar="NAME")
    ] = None,
    data: PairDataOption = None,
    model: ZeroShotModelOption = "lsm",
    backend: BackendOption = "sim",
    chip_seed: ChipSeedOption = None,
    config: ConfigOption = None,
    overrides: SetOption = None,
    seed: SeedOption = 0,
    seeds: SeedsOption = 1,
    out: OutOption = Path("runs"),
    as_json: JsonOption = False,
) -> None:
    """Find the image of a letter by the brain activity of writing it (brain to vision), on several macros.

    The network of 2048 neurons is larger than a macro: it is cut into blocks that several macros, or one macro again
    and again, compute in turn (btv.macros). 22 letters are learned as pairs; 4 are never shown (zero-shot).
    """
    texts = _with_data("brain", brain, None, list(overrides or ()))
    texts = _with_data("letters", letters, None, texts)
    settings = _with_paths(_load(config, texts), ("brain", "letters"), data)
    own_neurons(settings, "btv.image (or btv.brain)", settings.btv.image)
    _refuse_for_tiles(settings, backend)
    drawn_by = _array_only(model, ("lsm", "lsm-proto"), backend, None, None, chip_seed, settings)

    def one(seed: int, chip_seed: int) -> dict[str, Any]:
        if model in ("lsm", "lsm-proto"):
            return lsm_zero_shot.run_btv(settings, model, backend, seed, chip_seed, out)
        return lsm_zero_shot.train_baseline("btv", settings, model, seed, out)

    _run(one, lsm_zero_shot.show, None, None, seed, seeds, drawn_by, as_json)


@app.command(
    "transfer",
    epilog="\b\nExamples:\n  hil calibrate all --chip-seed 7\n"
    "  hil lsm transfer --chip-seed 7 --calibration runs/calibrations/emulated-7.h5 --train 50 --test 15",
)
@reports_errors
def transfer(
    dataset: VisionOption = None,
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
    settings = _load(config, _with_data("data", dataset, data, with_calibration(overrides, calibration)))
    if settings.calibration.file is None:
        raise ConfigError(
            "hil lsm transfer needs a calibration: without it the simulator is of no chip in particular",
            fix="add --calibration FILE; hil calibrate all makes one",
        )
    started = time.perf_counter()
    drawn_by = seed if chip_seed is None else chip_seed
    result = lsm_transfer.transfer(settings, backend, train, test, seed, drawn_by, out)
    result["wall_s"] = round(time.perf_counter() - started, 2)
    print_result(result, lsm_transfer.show, as_json=as_json)


def _supervised(
    task_name: str,
    settings: Any,
    model: str,
    backend: str,
    samples: int | None,
    against: str | None,
    faults: Path | None,
    repeats: int,
    chip_seed: int | None,
    seed: int,
    seeds: int,
    out: Path,
    as_json: bool,
) -> None:
    if samples is None and against is not None:
        raise ConfigError(f"--against {against} says nothing without --samples", fix="add --samples N, such as 32")
    if samples is None and repeats != 1:
        raise ConfigError(f"--repeats {repeats} says nothing without --samples", fix="add --samples N, such as 32")
    task = lsm_supervised.TASKS[task_name]
    if model not in task.paper:
        raise ConfigError(f"unknown model {model!r}", fix=f"choose one of: {', '.join(task.paper)}")
    drawn_by = _array_only(model, ("lsm",), backend, samples, faults, chip_seed, settings)
    fault_map = _fault_map(faults, settings)

    def one(seed: int, chip_seed: int) -> dict[str, Any]:
        if model != "lsm":
            return lsm_supervised.train_baseline(task, settings, model, seed, out)
        if samples is None:
            return lsm_supervised.classify(task, settings, backend, fault_map, seed, chip_seed, out)
        return lsm_supervised.compare(
            task, settings, backend, against or "sim", fault_map, samples, repeats, seed, chip_seed, out
        )

    show = lsm_supervised.show_classified if samples is None else lsm_supervised.show_compared
    _run(one, show, faults, fault_map, seed, seeds, drawn_by, as_json)


def _run(
    one: Callable[[int, int], dict[str, Any]],
    show: Callable[[dict[str, Any]], None],
    faults: Path | None,
    fault_map: FaultMap | None,
    seed: int,
    seeds: int,
    chip_seed: int | None,
    as_json: bool,
) -> None:
    """One seed, or several one after another."""

    def timed(seed: int, chip_seed: int) -> dict[str, Any]:
        started = time.perf_counter()
        result = one(seed, chip_seed)
        from_calibration = None if fault_map is None else "the calibration"
        result["faults_from"] = str(faults) if faults is not None else from_calibration
        result["wall_s"] = round(time.perf_counter() - started, 2)
        return result

    run_seeds(timed, show, seed, seeds, chip_seed, as_json=as_json)


def _refuse_for_tiles(settings: Any, backend: str) -> None:
    """Refuse what is of one array where a network over several takes it for all of them."""
    if "n_neurons" in settings.lsm.model_fields_set:
        raise ConfigError("lsm.n_neurons is not used by hil lsm btv", fix="set btv.n_neurons")
    if settings.projection.model_fields_set:
        raise ConfigError("section projection is not used by hil lsm btv", fix="set btv.projection")
    of_one_array = {
        f"calibration.file = {settings.calibration.file}": settings.calibration.file is not None,
        f"sim.chip = {settings.sim.chip}": settings.sim.chip is not None,
        f"--backend {backend}": backend not in ("sim", "emulator"),
    }
    for what, is_given in of_one_array.items():
        if is_given and settings.btv.macros > 1:
            raise ConfigError(
                f"{what} is one array, but btv.macros = {settings.btv.macros}",
                fix="set btv.macros=1: that array then serves all blocks in turn",
            )


def _array_only(
    model: str,
    on_array: tuple[str, ...],
    backend: str,
    samples: int | None,
    faults: Path | None,
    chip_seed: int | None,
    settings: Any,
) -> int | None:
    """The chip seed that is asked for, after refusing options that mean nothing to a model without an array."""
    if model in on_array:
        return chip_seed
    if "n_neurons" in settings.lsm.model_fields_set:
        raise ConfigError(f"lsm.n_neurons is not used by model {model!r}", fix="set baseline.n_neurons")
    given = {
        "--backend": backend != "sim",
        "--samples": samples is not None,
        "--faults": faults is not None,
        "--chip-seed": chip_seed is not None,
        "--calibration": settings.calibration.file is not None,
    }
    for option, is_given in given.items():
        if is_given:
            raise ConfigError(
                f"{option} says nothing to model {model!r}, which is trained on the host and uses no array",
                fix=f"leave it out, or use --model {on_array[0]}",
            )
    return None


def _load(config: Path | None, overrides: list[str]) -> Any:
    require_sim()
    from hil.cli.settings import load_settings

    return load_settings(config, overrides)


def _with_data(section: str, dataset: str | None, data: Path | None, overrides: list[str]) -> list[str]:
    """Overrides with the names of --dataset and --data."""
    texts = list(overrides)
    if dataset is not None:
        texts.append(f"{section}.dataset={_quoted(dataset)}")
    if data is not None:
        texts.append(f"{section}.path={_quoted(str(data))}")
    return texts


def _with_paths(settings: Any, sections: tuple[str, ...], data: Path | None) -> Any:
    """Settings with the folder of --data for each data set that needs files.

    Raises:
        ConfigError: none of them needs any.
    """
    if data is None:
        return settings
    from experiments.datasets.families import needs_path

    chosen = {name: getattr(settings, name) for name in sections}
    wanting = {name: part for name, part in chosen.items() if needs_path(part.dataset)}
    if not wanting:
        names = " and ".join(part.dataset for part in chosen.values())
        raise ConfigError(f"--data {data} says nothing: {names} come with the project", fix="name a data set of files")
    return settings.model_copy(update={name: part.model_copy(update={"path": data}) for name, part in wanting.items()})


def _fault_map(faults: Path | None, settings: Any) -> FaultMap | None:
    from hil.fault_map import FaultMap

    return placement_map(settings) if faults is None else FaultMap.load(faults)


def _quoted(text: str) -> str:
    """As a TOML string, whose escapes are those of JSON."""
    return json.dumps(text, ensure_ascii=False)
