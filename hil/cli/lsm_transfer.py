"""`hil lsm transfer`: what is learned on a board, used on its simulator, and the other way round."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import typer

from hil.cli.calibration_note import calibration_note, placement_map
from hil.cli.lsm_output import percent, save_figures, with_interval
from hil.cli.lsm_run import few_threads, load_dataset, make_array, start_run
from hil.cli.terminal import print_table, progress_bars


def transfer(
    settings: Any, backend_name: str, n_train: int, n_test: int, seed: int, chip_seed: int, out: Path
) -> dict[str, Any]:
    """Run the experiment; what came out, as JSON can hold it."""
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
        "figures": save_figures(outcome.figures, run_file.path.with_suffix("")),
    }


def show(result: dict[str, Any]) -> None:
    """Print the four accuracies."""
    typer.echo(f"board:       {result['backend']}, seed {result['chip_seed']}")
    typer.echo(f"calibration: {result['calibration_text']}")
    typer.echo(f"data:        {result['data_source']}")
    typer.echo(f"samples:     {result['n_train_drawn']} for training, {result['n_test_drawn']} for testing\n")
    by_side: dict[str, list[str]] = {}
    for cell in result["transfer"]:
        low, high = cell["accuracy_interval"]
        text = f"{percent(cell['accuracy'])} ({100 * low:.1f} to {100 * high:.1f})"
        by_side.setdefault(cell["trained_on"], [f"trained on {cell['trained_on']}"]).append(text)
    header = ("", *(f"tested on {cell['tested_on']}" for cell in result["transfer"][: len(by_side)]))
    print_table("Accuracy, with its 95 % interval", header, [tuple(texts) for texts in by_side.values()])
    for one in result["lost_by_transfer"]:
        lost = with_interval(one["accuracy_lost"], one["accuracy_lost_interval"], sign=True)
        low, high = one["accuracy_lost_interval"]
        verdict = "no more than chance" if low <= 0.0 <= high else "more than chance"
        typer.echo(f"on the {one['tested_on']}, training on the other costs {lost}: {verdict}")
