"""`hil bench`: speed of encoder, board schedule, emulator and links."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

import typer

from hil.cli.errors import reports_errors
from hil.cli.extras import require_lab, require_sim
from hil.cli.options import JsonOption, SeedOption
from hil.cli.terminal import print_json, print_table

ProfileOption = Annotated[
    str, typer.Option("--profile", help="Board profile: a shipped name, or a TOML file.", metavar="NAME")
]

app = typer.Typer(
    help="Speed of encoder, board schedule, emulator and links.", no_args_is_help=True, rich_markup_mode=None
)


@app.callback()
def bench_commands() -> None:
    """Speed of encoder, board schedule, emulator and links."""


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


@app.command("schedule", epilog="\b\nExample:\n  hil bench schedule --profile tiny-8x8 --json")
@reports_errors
def schedule(profile: ProfileOption = "paper-guess", seed: SeedOption = 0, as_json: JsonOption = False) -> None:
    """Board time per VMM over the time of its ADC conversions, and the speed-up by sparse inputs.

    The paper's differential tile of 456 x 200, or as much of it as the board holds, on an emulated board: board time
    is emulated and the same on every machine. Expected speed-ups are for rows that are active independently.
    """
    require_sim()
    from firmware_bridge.emulator import emulated_backend
    from firmware_bridge.schedule_bench import measure_schedule, paper_tile
    from hil.session import open_session
    from sim_backend.settings import SimSettings

    # Board time does not depend on the cells, and ideal ones are prepared in no time.
    backend = emulated_backend(profile, SimSettings(ideal=True), seed)
    board = backend.profile
    tile = paper_tile(board)
    batch = 32
    with open_session(backend) as session:
        times = measure_schedule(session, board, tile, batch=batch, seed=seed)
    if as_json:
        shape = {"profile": board.name, "rows": tile.n_rows, "outputs": tile.n_outputs, "adcs": board.adc.count}
        print_json({**shape, "batch": batch, **asdict(times)})
        return
    print_table(
        f"Dense {tile.n_rows} x {tile.n_outputs} differential VMM on board {board.name}, emulated board time",
        ("what", "value"),
        [
            ("ADC bound", f"{times.phases} phases x {times.conversions_per_phase} conversions on each of "
             f"{board.adc.count} ADCs = {1e3 * times.bound_s:.3f} ms"),
            (f"in a batch of {batch}", f"{1e3 * times.dense_s:.3f} ms, {times.dense_over_bound:.3f} x bound"),
            ("alone", f"{1e3 * times.single_s:.3f} ms, {times.single_dense_over_bound:.3f} x bound"),
            ("once per program", f"{1e6 * times.fill_s:.1f} us"),
        ],
    )  # fmt: skip
    rows = [
        (
            f"{100 * float(activity):g} %",
            f"{at.phases:.2f}",
            f"{at.expected_phases:.2f}",
            f"{at.over_bound:.3f}",
            f"{at.measured:.2f}",
            f"{at.expected:.2f}",
        )
        for activity, at in times.speedup.items()
    ]
    header = ("active rows", "phases", "expected", "x bound", "speed-up", "expected")
    typer.echo()
    print_table("Sparse inputs against dense ones", header, rows)


@app.command(
    "emulator",
    epilog="\b\nExample (a small board; the default one takes half a minute):\n"
    "  hil bench emulator --profile tiny-8x8 --json",
)
@reports_errors
def emulator(profile: ProfileOption = "paper-guess", seed: SeedOption = 0, as_json: JsonOption = False) -> None:
    """VMMs per second of the emulated board on this machine.

    The paper's differential tile of 456 x 200 (456 x 400 cells), or as much of it as the board holds, in batches of 32,
    8.9 % of the rows active as in N-MNIST, and all of them (dense). All effects of the hidden chip are on.
    """
    require_sim()
    from firmware_bridge.emulator_bench import ACTIVITY, measure_emulator
    from firmware_bridge.profile import load_profile
    from firmware_bridge.schedule_bench import paper_tile

    board = load_profile(profile)
    speed = measure_emulator(board, seed=seed)
    tile = paper_tile(board)
    if as_json:
        print_json({"profile": board.name, "rows": tile.n_rows, "cols": len(tile.cols), **asdict(speed)})
        return
    print_table(
        f"Emulated board {board.name}, {tile.n_rows} x {len(tile.cols)} cells",
        ("rows active", "VMM/s", "board time / wall time"),
        [
            (f"{100 * ACTIVITY:g} %", f"{speed.vmm_per_s:,.0f}", f"{speed.emulated_over_wall:.2f}"),
            ("all", f"{speed.vmm_per_s_dense:,.0f}", f"{speed.emulated_over_wall_dense:.2f}"),
        ],
    )
    typer.echo(
        f"\nThreads of the linear algebra: {speed.threads}. Of the time, the host's compiler and checks take "
        f"{100 * speed.host_fraction:.0f} %.\n"
        f"Once: power-up and self-test {speed.open_s:.1f} s, first VMM on a tile {speed.prepare_s:.1f} s."
    )


@app.command(
    "link",
    epilog="\b\nExample (a small board; the default one takes a minute):\n  hil bench link --profile tiny-8x8 --json",
)
@reports_errors
def link(profile: ProfileOption = "paper-guess", seed: SeedOption = 0, as_json: JsonOption = False) -> None:
    """Speed of the links to a daemon: TCP on this machine, and a serial line of 921600 baud.

    An emulated board through TCP against the same board in this process, batches of 64, 8.9 % of the rows active, in
    turns; and a backend that answers at once. The serial line is a pair of pseudo-terminals that keep to its rate.
    """
    require_sim()
    require_lab()
    from firmware_bridge.emulator import emulated_backend
    from firmware_bridge.link_bench import BATCH, measure_link
    from firmware_bridge.schedule_bench import paper_tile
    from hil.tile import differential_tile
    from sim_backend.settings import SimSettings

    board = emulated_backend(profile, SimSettings(), seed)
    speed = measure_link(
        board, [f"board.profile={profile}"], paper_tile(board.profile), differential_tile(456, 200), seed=seed
    )
    if as_json:
        print_json({"profile": board.profile.name, "batch": BATCH, **asdict(speed)})
        return
    print_table(
        "Links to a daemon on this machine",
        ("what", "value"),
        [
            (f"emulated board {board.profile.name}, batches of {BATCH}", f"{speed.local_vmm_per_s:,.0f} VMM/s in this "
             f"process, {speed.tcp_vmm_per_s:,.0f} through TCP: {speed.tcp_over_local:.3f}"),
            ("TCP alone, 456 x 200", f"{speed.null_requests_per_s:,.0f} requests/s; {speed.null_mb_per_s:,.0f} MB/s"),
            (f"serial, {speed.baud} baud, batches of {BATCH}", f"{speed.serial_over_line_rate:.3f} of the line rate; "
             f"currents as float32: {speed.serial_useful_over_line_rate:.3f}"),
        ],
    )  # fmt: skip
