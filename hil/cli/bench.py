"""`hil bench`: speed as ratios measured in one run."""

from __future__ import annotations

from dataclasses import asdict

import typer

from hil.cli.errors import reports_errors
from hil.cli.extras import require_sim
from hil.cli.options import JsonOption, SeedOption
from hil.cli.terminal import print_json, print_table

app = typer.Typer(help="Speed, as ratios measured in one run.", no_args_is_help=True, rich_markup_mode=None)


@app.callback()
def bench_commands() -> None:
    """Speed, as ratios measured in one run."""


@app.command("lsm", epilog="\b\nExample:\n  hil bench lsm --json")
@reports_errors
def lsm(seed: SeedOption = 0, as_json: JsonOption = False) -> None:
    """Samples per second of the encoder against a noise-free dense torch loop, on one thread and on two.

    Shape and spike density of N-MNIST (256-200, 50 steps, 8.9 %). The ratios of one thread are the ones to quote.
    Where numba has one thread only, two_threads is null.
    """
    require_sim()
    import numba

    from experiments.lsm.speed import measure
    from sim_backend.backend import SimBackend
    from sim_backend.settings import SimSettings

    speeds = [
        measure(
            SimBackend(SimSettings(ideal=True), seed=seed), SimBackend(SimSettings(), seed=seed), threads=n, seed=seed
        )
        for n in (1, 2)[: numba.get_num_threads()]
    ]
    if as_json:
        print_json({**asdict(speeds[0]), "two_threads": asdict(speeds[1]) if len(speeds) > 1 else None})
        return
    rows = [
        (
            str(s.threads),
            f"{s.dense_torch:,.0f}",
            f"{s.engine_ideal:,.0f}",
            f"{s.engine_full:,.0f}",
            f"{s.ratio_ideal:.2f}",
            f"{s.ratio_full:.2f}",
        )
        for s in speeds
    ]
    header = ("threads", "dense torch /s", "engine ideal /s", "engine full /s", "ideal / torch", "full / torch")
    print_table("Samples per second, 256-200, 50 steps, 8.9 % input density", header, rows)
