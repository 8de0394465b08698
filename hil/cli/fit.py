"""`hil array fit`: parameters of the simulator's cell models, out of measured rows."""

from __future__ import annotations

import importlib
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from hil.cli.errors import reports_errors
from hil.cli.extras import require_sim
from hil.cli.options import JsonOption, OutOption, parse_seed
from hil.cli.terminal import print_json, print_table
from hil.errors import ConfigError

EXAMPLES = """\b
Examples:
  hil array fit --model forming form.csv --save forming.toml
  hil array fit --model forming form.csv --json
"""

#: quantiles that are printed side by side
SHARES = (0.05, 0.25, 0.5, 0.75, 0.95)


@reports_errors
def fit(
    path: Annotated[
        Path, typer.Argument(help="Measured rows; docs/reference/measured-files.md has the layouts.", metavar="FILE")
    ],
    model: Annotated[
        str,
        typer.Option("--model", help="forming, set, reset, cycling, relaxation, retention or noise.", metavar="NAME"),
    ],
    technology: Annotated[
        str | None, typer.Option("--technology", help="Of a retention file that holds several.", metavar="A|B")
    ] = None,
    save: Annotated[
        Path | None, typer.Option("--save", help="Write the parameters as settings of the simulator.", metavar="FILE")
    ] = None,
    seed: Annotated[
        int,
        typer.Option("--seed", help="Draws the cells to fit, and what is simulated.", parser=parse_seed, metavar="N"),
    ] = 0,
    out: OutOption = Path("runs"),
    as_json: JsonOption = False,
) -> None:
    """Fit a model of the simulator to measured cells, and say how well it repeats them.

    Half of the cells are fitted (all of them where they are few); the simulator then repeats the measurement with
    the parameters found, and what it gives is compared with the other half: distances between the two distributions
    (Kolmogorov-Smirnov, Wasserstein), and a figure with both.
    """
    require_sim()
    from sim_backend.fits import MODELS

    if model not in MODELS:
        raise ConfigError(f"there is no model {model!r} to fit", fix=f"choose one of: {', '.join(MODELS)}")
    if technology is not None and model != "retention":
        raise ConfigError(f"--technology {technology} chooses rows of retention files only", fix="leave it out")
    module = importlib.import_module(MODELS[model])
    found = module.fit(module.load(path, *([technology] if technology else [])), seed=seed)
    result = {
        "model": model,
        "file": str(path),
        "seed": seed,
        "n_rows": found.n_rows,
        "parameters": {name: p._asdict() for name, p in found.parameters.items()},
        "goodness": dict(found.goodness),
        "distances": {name: vars(d) for name, d in found.distances.items()},
        "quantiles": {name: _quantiles(*pair) for name, pair in found.samples.items()},
        "settings": {f"sim.{key}": value for key, value in found.settings.items()},
        "notes": list(found.notes),
        "figures": [str(p) for p in _draw(found, out, f"fit-{model}-{_stem(path)}")],
        "saved": None if save is None else str(_save(save, found.settings, f"{model} fitted to {path.name}")),
    }
    if as_json:
        print_json(result)
    else:
        _show(result)


def _quantiles(measured: Any, simulated: Any) -> dict[str, list[float]]:
    import numpy as np

    return {
        who: np.quantile(sample, SHARES).tolist() for who, sample in (("measured", measured), ("simulated", simulated))
    }


def _stem(path: Path) -> str:
    """Name of a file without `.csv.gz` and the like; other dots belong to it, as in step-0.05."""
    name = path.name
    for ending in (".gz", ".csv", ".tsv", ".txt", ".npz"):
        name = name.removesuffix(ending)
    return name


def _draw(found: Any, out: Path, name: str) -> list[Path]:
    from experiments.array.drawings import distribution_figure
    from experiments.style import save_figures

    shown = {what: f"KS {d.ks:.3f}" for what, d in found.distances.items()}
    return save_figures({name: distribution_figure(found.samples, shown)}, out)


def _save(path: Path, settings: Mapping[str, Any], title: str) -> Path:
    """Settings as a TOML file that `--config` takes; JSON's numbers, texts and lists are TOML's, too."""
    from experiments.style import write_aside

    sections: dict[str, list[str]] = {}
    for key, value in settings.items():
        section, _, name = key.rpartition(".")
        sections.setdefault(section, []).append(f"{name} = {json.dumps(value)}")
    blocks = [f"[sim.{section}]\n" + "\n".join(lines) for section, lines in sections.items()]
    return write_aside(path, (f"# {title}\n\n" + "\n\n".join(blocks) + "\n").encode())


def _show(result: Mapping[str, Any]) -> None:
    rows = [
        (name, f"{p['value']:.4g}", "held" if math.isnan(p["error"]) else f"{p['error']:.2g}", p["unit"])
        for name, p in result["parameters"].items()
    ]
    title = f"Model {result['model']!r}, {result['n_rows']} rows of {Path(result['file']).name}"
    print_table(title, ("parameter", "value", "standard error", "unit"), rows)
    typer.echo()
    rows = [(name, f"{value:.4g}") for name, value in result["goodness"].items()]
    if rows:
        print_table("Goodness of fit", ("what", "value"), rows)
        typer.echo()
    rows = [
        (name, f"{d['ks']:.3f}", f"{d['p_value']:.2g}", f"{d['wasserstein']:.3g}")
        for name, d in result["distances"].items()
    ]
    print_table("Simulated against measured", ("quantity", "KS", "p", "Wasserstein"), rows)
    typer.echo()
    rows = [
        (name if who == "measured" else "", who, *(f"{value:.3g}" for value in values))
        for name, both in result["quantiles"].items()
        for who, values in both.items()
    ]
    print_table("Quantiles", ("quantity", "", *(f"{100 * share:g} %" for share in SHARES)), rows)
    for note in result["notes"]:
        typer.echo(f"note:   {note}")
    for path in result["figures"]:
        typer.echo(f"figure: {path}")
    if result["saved"]:
        typer.echo(f"saved:  {result['saved']}   (use it with --config)")
