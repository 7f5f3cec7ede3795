"""Section 5.2: the time of behavior policy and F-BRC against that of CQL, for the same updates.

The three are measured as `bin/benchmark` does it: in turn, round by round, on one batch, with the
networks of gin/fbrc.gin and observations and actions of HalfCheetah's sizes.
"""

import dataclasses
import logging
import statistics
from collections.abc import Sequence
from typing import Any, Optional

import gin
import numpy as np
from matplotlib.figure import Figure

from fbrc_agent.experiments import benchmark, curves, report
from fbrc_agent.utils import checks, tables

# Hours for 1M updates, on 8 cores of an AMD EPYC 7B12.
_PAPER_HOURS = {"behavior": 1.4, "fbrc": 6.2, "cql": 16.3}
_UPDATES = 1_000_000
_QUICK_ROUNDS = 3
_ROWS = ("fbrc_to_cql", "behavior_to_fbrc")
_NAMES = {"behavior": "behavior policy", "fbrc": "F-BRC", "cql": "CQL"}
_COLORS = {"behavior": curves.SKY, "fbrc": curves.BLUE, "cql": curves.ORANGE}
# What makes a run of each method.
_METHODS = {"behavior policy + F-BRC": ("behavior", "fbrc"), "CQL": ("cql",)}


@gin.configurable(denylist=["quick"])
def speed(
    quick: bool, rounds: Optional[int] = None, seconds: float = benchmark.SIZES.seconds
) -> tuple[int, float]:
    """Returns how long is measured: the rounds, and the seconds of each agent in a round.

    Args:
      quick: Whether to measure few rounds.
      rounds: Rounds; by default 3 if quick, else those of `bin/benchmark`.
      seconds: Seconds of each agent in a round, at least.

    Raises:
      InputError: If one of them is not above 0.
    """
    if rounds is None:
        rounds = _QUICK_ROUNDS if quick else benchmark.ROUNDS
    checks.check_integer("speed.rounds", rounds, 1)
    checks.check_number("speed.seconds", seconds, above=0)
    return rounds, seconds


def run_speed(root_dir: str, quick: bool) -> report.Report:
    """Measures updates per second and extrapolates them to 1M updates.

    Args:
      root_dir: Unused; nothing is kept beside the report.
      quick: Whether to measure few rounds.

    Returns:
      The report.

    Raises:
      InputError: If gin's `speed` is not usable.
    """
    del root_dir
    rounds, seconds = speed(quick=quick)
    _bind_beneath("fbrc.gin")
    sizes = dataclasses.replace(benchmark.SIZES, seconds=seconds)
    measured = benchmark.run(benchmark.select_rows(_ROWS), sizes, rounds)
    numbers = extrapolate(measured["rounds"]["updates"])
    numbers.update({key: measured[key] for key in ("machine", "threads", "versions")})
    return report.Report(
        name="speed",
        title="Time of behavior policy and F-BRC against CQL (section 5.2)",
        command=report.command("speed", quick),
        numbers=numbers,
        figure=_draw(numbers),
        text=_describe(numbers),
    )


def _bind_beneath(file: str) -> None:
    """Binds what a gin file has, except what is bound already."""
    given = gin.config_str(max_line_length=100_000)
    logging.disable(logging.ERROR)  # gin logs one for each place where the file is not.
    try:
        with gin.unlock_config():
            gin.parse_config_file(file)
            gin.parse_config(given)
    finally:
        logging.disable(logging.NOTSET)


def extrapolate(rounds: dict[str, list[float]]) -> dict[str, Any]:
    """Returns the hours that 1M updates would take.

    Args:
      rounds: Updates per second of `behavior`, `fbrc` and `cql` in each round, by these
        names.

    Returns:
      `updates_per_second` and `hours` of each agent: the median over the rounds, and its quartiles.
      `cql_to_fbrc`: likewise, of each round's hours of CQL divided by those of behavior policy and
      F-BRC.
    """
    rates = {name: rounds[name] for name in _NAMES}
    hours = {name: [_UPDATES / rate / 3600.0 for rate in rates[name]] for name in _NAMES}
    stages = zip(hours["behavior"], hours["fbrc"], hours["cql"])
    return {
        "extrapolated_to_updates": _UPDATES,
        "rounds": rounds,
        "updates_per_second": {name: _median(values) for name, values in rates.items()},
        "hours": {name: _median(values) for name, values in hours.items()},
        "cql_to_fbrc": _median([cql / (behavior + fbrc) for behavior, fbrc, cql in stages]),
        "paper_hours": _PAPER_HOURS,
    }


def _median(values: Sequence[float]) -> dict[str, Any]:
    low, high = np.quantile(values, [0.25, 0.75])
    return {"median": statistics.median(values), "quartiles": [float(low), float(high)]}


def _describe(numbers: dict[str, Any]) -> str:
    rows = [["", "updates/s", "hours for 1M updates, extrapolated", "hours in the paper"]]
    for name, label in _NAMES.items():
        rate = numbers["updates_per_second"][name]
        low, high = rate["quartiles"]
        rows.append(
            [label, f"{rate['median']:.1f} ({low:.1f} to {high:.1f})"]
            + [f"{numbers['hours'][name]['median']:.2f}", f"{_PAPER_HOURS[name]:.1f}"]
        )
    ratio = numbers["cql_to_fbrc"]
    low, high = ratio["quartiles"]
    paper = _PAPER_HOURS["cql"] / (_PAPER_HOURS["behavior"] + _PAPER_HOURS["fbrc"])
    count = len(numbers["rounds"]["fbrc"])
    return "\n\n".join(
        [
            f"CQL takes {ratio['median']:.2f} times as long as behavior policy and F-BRC together "
            f"({low:.2f} to {high:.2f}); in the paper, on 8 cores of an AMD EPYC 7B12, "
            f"{paper:.2f} times.",
            tables.table(rows, markdown=True),
            f"Medians and quartiles of {count} rounds. The hours are extrapolated from the "
            "updates/s, seconds of updates on one batch; no run of 1M updates was made, and "
            "loading, evaluation and logging are not in them. CQL is TF-Agents' `CqlSacAgent` with "
            "10 sampled actions and the networks of F-BRC.",
        ]
    )


def _draw(numbers: dict[str, Any]) -> Figure:
    figure = Figure(figsize=(11.0, 3.8), dpi=100, layout="constrained")
    ours, theirs = figure.subplots(1, 2, sharey=True)
    hours = {name: entry["median"] for name, entry in numbers["hours"].items()}
    cores = numbers["machine"]["cores"]
    _draw_hours(ours, hours, f"this machine, {cores} core{'s' if cores > 1 else ''}: extrapolated")
    _draw_hours(theirs, _PAPER_HOURS, "the paper: 8 cores of an AMD EPYC 7B12")
    ours.invert_yaxis()  # Theirs is the same.
    figure.legend(
        *ours.get_legend_handles_labels(), loc="outside lower center", ncols=3, fontsize=9
    )
    figure.suptitle("Time of 1M updates", fontsize=13)
    return figure


def _draw_hours(axes: Any, hours: dict[str, float], title: str) -> None:
    axes.set_title(title, fontsize=11)
    axes.set_xlabel("hours")
    axes.grid(True, axis="x", color="0.9")
    axes.set_axisbelow(True)
    totals = []
    for row, stages in enumerate(_METHODS.values()):
        start = 0.0
        for name in stages:
            axes.barh(
                row, hours[name], left=start, height=0.6, color=_COLORS[name], label=_NAMES[name]
            )
            start += hours[name]
        axes.text(start, row, f" {start:.1f} h", va="center", fontsize=10)
        totals.append(start)
    axes.set_yticks(range(len(_METHODS)), list(_METHODS))
    axes.set_xlim(0.0, 1.18 * max(totals))
