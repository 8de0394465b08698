"""The same run with one seed or with several, one after another."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import typer

from hil.cli.lsm_output import percent, print_result
from hil.cli.terminal import print_json, print_table
from hil.errors import ConfigError

#: what is averaged over seeds: where it stands in a result, and what it is called
_SCORES = (
    (("honest_accuracy",), "honest protocol"),
    (("paper_accuracy",), "paper protocol"),
    (("leave_one_speaker_out", "mean_accuracy"), "unheard speakers (honest)"),
    (("accuracy_difference",), "difference to the reference"),
    (("count_correlation",), "count correlation"),
    (("honest", "seen", "accuracy"), "seen classes, honest protocol"),
    (("honest", "seen", "reverse_accuracy"), "... from gallery to queries"),
    (("honest", "unseen", "accuracy"), "unseen classes, honest protocol"),
    (("honest", "unseen", "reverse_accuracy"), "... unseen, from gallery to queries"),
    *((("shots", str(k), "accuracy"), f"... {k} labelled pairs of each") for k in (1, 5, 20)),
    (("windows", "honest", "seen", "accuracy"), "all windows, seen, honest protocol"),
    (("windows", "honest", "unseen", "accuracy"), "all windows, unseen, honest protocol"),
    (("paper", "seen", "accuracy"), "seen classes, paper protocol"),
    (("paper", "unseen", "accuracy"), "unseen classes, paper protocol"),
)


def run_seeds(
    one: Callable[[int, int], dict[str, Any]],
    show: Callable[[dict[str, Any]], None],
    seed: int,
    n_seeds: int,
    chip_seed: int | None,
    *,
    as_json: bool,
) -> None:
    """Run and print.

    Args:
        one: runs (seed, chip seed); what came out.
        show: prints one result.
        seed, n_seeds: the seeds are seed, seed + 1, ...
        chip_seed: of the chip, or None for one with each seed.
        as_json: print one JSON object.

    Raises:
        ConfigError: no seed.
    """
    if n_seeds < 1:
        raise ConfigError(f"--seeds {n_seeds} is below 1", fix="run one seed at least")
    if n_seeds == 1:
        print_result(one(seed, seed if chip_seed is None else chip_seed), show, as_json=as_json)
        return
    results: list[dict[str, Any]] = []
    for number in range(seed, seed + n_seeds):
        results.append(one(number, number if chip_seed is None else chip_seed))
        if not as_json:
            typer.echo(f"seed {number}: {_scores_text(results[-1])}; run file: {results[-1]['run_file']}")
        if not as_json and number == seed:
            for text in _data_texts(results[0]):
                typer.echo(text)
    means, by_chance = over_seeds(results), _unseen_by_chance(results)
    if as_json:
        found = {"experiment": results[0]["experiment"], "n_seeds": n_seeds, "mean": means}
        print_json({**found, **({} if by_chance is None else {"unseen_by_chance": by_chance}), "runs": results})
        return
    rows = [
        (
            entry["score"],
            percent(entry["mean"]),
            _interval_text(entry),
            f"{percent(min(entry['values']))} to {percent(max(entry['values']))}",
        )
        for entry in means
    ]
    print_table(f"Mean over {n_seeds} seeds", ("score", "mean", "95 % interval of the mean", "range"), rows)
    if by_chance is not None:
        low, high = by_chance["chance_interval"]
        typer.echo(
            f"unseen classes: by chance the mean lies within {percent(low)} to {percent(high)} (95 %), "
            f"p = {by_chance['p_value']:.3g} for these classes and recordings; "
            f"{by_chance['paper_reached']} of {n_seeds} seeds reach the published figure by the paper protocol"
        )


def _data_texts(result: dict[str, Any]) -> list[str]:
    """Which data, and what a reader must know of them."""
    parts = [result[name] for name in ("query", "gallery") if name in result] or [result]
    return [f"data: {part['data_source']}" + (f" ({part['data_note']})" if part["data_note"] else "") for part in parts]


def _interval_text(entry: dict[str, Any]) -> str:
    """Within what its values could be: accuracies end at 0 and 1, differences and correlations at -1."""
    least = 0.0 if min(entry["values"]) >= 0 else -1.0
    low, high = (min(max(bound, least), 1.0) for bound in entry["interval"])
    return f"{percent(low)} to {percent(high)}"


def over_seeds(results: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Mean of each score with its t interval, and its range; scores that a run does not have are left out."""
    from experiments.lsm.over_seeds import mean_interval

    found = []
    for path, text in _SCORES:
        values = [_at(result, path) for result in results]
        if any(value is None for value in values):
            continue
        found.append({"score": text, **mean_interval(values)})
    return found


def _unseen_by_chance(results: list[dict[str, Any]]) -> dict[str, Any] | None:
    """Where chance alone would put the mean of the unseen classes; None for other experiments."""
    confusions = [_at(result, ("honest", "unseen", "confusion")) for result in results]
    # Two backends side by side have few queries, and no paper protocol.
    if any(confusion is None for confusion in confusions) or "paper" not in results[0]:
        return None
    from experiments.lsm.over_seeds import chance

    n_reached = sum(bool(_at(result, ("paper", "reached"))) for result in results)
    return {**chance(confusions), "paper_reached": n_reached}


def _at(result: dict[str, Any], path: tuple[str, ...]) -> Any:
    found: Any = result
    for key in path:
        found = found.get(key) if isinstance(found, dict) else None  # pyright: ignore[reportUnknownMemberType]
    return found


def _scores_text(result: dict[str, Any]) -> str:
    values = [(text, _at(result, path)) for path, text in _SCORES]
    return ", ".join(f"{text} {percent(value)}" for text, value in values if value is not None)
