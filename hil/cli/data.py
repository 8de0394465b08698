"""`hil data`: which data sets there are, whether files are what they should be, and making them ready."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from hil.cli.errors import reports_errors
from hil.cli.extras import require_sim
from hil.cli.options import ConfigOption, JsonOption, SetOption
from hil.cli.terminal import print_json, print_table, progress_bars

if TYPE_CHECKING:
    from experiments.datasets.catalogue import DatasetEntry
    from experiments.datasets.spike_dataset import SpikeDataset, SpikeSet

app = typer.Typer(help="Data sets of the LSM experiments.", no_args_is_help=True, rich_markup_mode=None)

NameArgument = Annotated[str, typer.Argument(help="A name that hil data list shows.", metavar="NAME")]
DataOption = Annotated[Path | None, typer.Option("--data", help="File or folder of the data set.", metavar="PATH")]


@app.callback()
def data() -> None:
    """Data sets of the LSM experiments."""


@app.command("list", epilog="\b\nExamples:\n  hil data list\n  hil data list --json")
@reports_errors
def list_(as_json: JsonOption = False) -> None:
    """List the data sets: which come with the project, and what files the others need."""
    require_sim()
    from experiments.datasets.families import FAMILIES, entries

    found = entries()
    if as_json:
        rows = [{**vars(entry), "commands": FAMILIES[entry.family].commands} for entry in found]
        print_json({"datasets": rows})
        return
    for name, family in FAMILIES.items():
        own = [entry for entry in found if entry.family == name]
        rows = [(entry.name, _described(entry)) for entry in own]
        print_table(f"{name}, for {family.commands}", ("name", "what it is"), rows)
        typer.echo("")


@app.command("prepare", epilog="\b\nExample:\n  hil data prepare digits-voices")
@reports_errors
def prepare(
    name: NameArgument,
    data: DataOption = None,
    config: ConfigOption = None,
    overrides: SetOption = None,
    as_json: JsonOption = False,
) -> None:
    """Read or make a data set once and keep it in the user's cache, so that experiments start at once."""
    from experiments.datasets.cache import cache_folder

    _show(_load(name, data, config, overrides), as_json, {"cache": str(cache_folder())})


@app.command(
    "check", epilog="\b\nExamples:\n  hil data check letters-pen --json\n  hil data check nmnist --data nmnist.tar.gz"
)
@reports_errors
def check(
    name: NameArgument,
    data: DataOption = None,
    config: ConfigOption = None,
    overrides: SetOption = None,
    as_json: JsonOption = False,
) -> None:
    """Read the files of a data set anew, past the cache, and show what is in them; a wrong file is named."""
    from experiments.datasets.cache import bypassed

    with bypassed():
        _show(_load(name, data, config, overrides), as_json, {})


def _load(name: str, data: Path | None, config: Path | None, overrides: list[str] | None) -> tuple[SpikeDataset, float]:
    """The data set, and how long it took."""
    require_sim()
    from experiments.datasets.families import FAMILIES, entry_of, load
    from hil.cli.settings import load_settings

    settings = load_settings(config, list(overrides or ()))
    family = entry_of(name).family
    section = FAMILIES[family].section
    chosen = {"dataset": name} if data is None else {"dataset": name, "path": data}
    part = getattr(settings, section).model_copy(update=chosen)
    started = time.perf_counter()
    with progress_bars() as progress:
        dataset = load(family, settings.model_copy(update={section: part}), progress)
    return dataset, time.perf_counter() - started


def _show(found: tuple[SpikeDataset, float], as_json: bool, more: dict[str, Any]) -> None:
    dataset, wall_s = found
    result = {
        **dataset.described(),
        "n_inputs": dataset.n_inputs,
        "n_steps": dataset.n_steps,
        "n_classes": dataset.n_classes,
        "per_class": {split: _per_class(getattr(dataset, split), dataset.n_classes) for split in ("train", "test")},
        "spikes_per_input_and_step": {
            split: _density(getattr(dataset, split), dataset.n_inputs) for split in ("train", "test")
        },
        "speakers": list(dataset.speaker_names),
        "wall_s": round(wall_s, 2),
        **more,
    }
    if as_json:
        print_json(result)
        return
    rows: list[tuple[str, ...]] = [
        ("data", dataset.source),
        *([("note", dataset.note)] if dataset.note else []),
        ("inputs, steps, classes", f"{dataset.n_inputs}, {dataset.n_steps}, {dataset.n_classes}"),
        *((f"{split} samples", _split_text(result, split)) for split in ("train", "test")),
        *([("speakers", ", ".join(dataset.speaker_names))] if dataset.speaker_names else []),
        *((key, str(value)) for key, value in more.items()),
        ("time", f"{wall_s:.1f} s"),
    ]
    print_table(f"Data set {dataset.name}", ("what", "value"), rows)


def _described(entry: DatasetEntry) -> str:
    origin = "made by a model" if entry.synthetic else "recorded"
    needs = entry.layout or "nothing, it comes with the project"
    return f"{entry.content} ({origin})\nsplit: {entry.split}\nneeds: {needs}"


def _split_text(result: dict[str, Any], split: str) -> str:
    counts = result["per_class"][split]
    absent = [str(label) for label, n in enumerate(counts) if not n]
    each = f"{min(n for n in counts if n)} to {max(counts)} a class"
    density = 100 * result["spikes_per_input_and_step"][split]
    without = f", none of class {', '.join(absent)}" if absent else ""
    return f"{result[f'n_{split}']}, {each}{without}; {density:.2f} % of inputs spike in a step"


def _per_class(samples: SpikeSet, n_classes: int) -> list[int]:
    import numpy as np

    return np.bincount(samples.labels, minlength=n_classes).tolist()


def _density(samples: SpikeSet, n_inputs: int) -> float:
    import numpy as np

    # Bit by bit over bytes, which NumPy 1.26 can count too.
    ones = np.unpackbits(np.arange(256, dtype=np.uint8)[:, None], axis=1).sum(axis=1)
    spikes = int(ones[samples.words.view(np.uint8)].sum(dtype=np.int64))
    return spikes / (len(samples) * samples.words.shape[1] * n_inputs)
