"""Section 5.2: the time of behavior policy and F-BRC against that of CQL, for the same updates.

The three are measured as `bin/benchmark` does it: in turn, round by round, on one batch, with the
networks of gin/fbrc.gin and observations and actions of HalfCheetah's sizes.
"""

import dataclasses
from typing import Any, Optional

import gin
import numpy as np
from matplotlib.figure import Figure

from fbrc_agent.experiments import benchmark, benchmark_training, figures, report
from fbrc_agent.utils import checks, tables

# Hours for 1M updates, on 8 cores of an AMD EPYC 7B12.
_PAPER_HOURS = {"behavior": 1.4, "fbrc": 6.2, "cql": 16.3}
_UPDATES = 1_000_000
_NAMES = {"behavior": "behavior policy", "fbrc": "F-BRC", "cql": "CQL"}
_COLORS = {"behavior": figures.SKY, "fbrc": figures.BLUE, "cql": figures.ORANGE}
# What makes a run of each method.
_METHODS = {"behavior policy + F-BRC": ("behavior", "fbrc"), "CQL": ("cql",)}


@gin.configurable("speed", denylist=["root_dir", "quick"])
def run_speed(
    root_dir: str,
    quick: bool,
    rounds: Optional[int] = None,
    seconds: float = benchmark.SIZES.seconds,
) -> report.Report:
    """Measures updates per second, with gin/fbrc.gin parsed, and extrapolates them to 1M updates.

    Args:
      root_dir: Nothing is kept there.
      quick: Whether to measure 3 rounds by default, instead of those of `bin/benchmark`.
      rounds: How many; 1 or more.
      seconds: Of each agent in a round, at least; above 0.

    Raises:
      InputError: If `rounds` or `seconds` is not in its range.
    """
    rounds = (3 if quick else benchmark.SIZES.rounds) if rounds is None else rounds
    checks.check_integer("speed.rounds", rounds, 1)
    checks.check_number("speed.seconds", seconds, above=0)
    sizes = dataclasses.replace(benchmark.SIZES, seconds=seconds)
    contenders = benchmark_training.make_updates(sizes, root_dir, list(_NAMES))
    measured = benchmark.measure("updates", contenders, rounds)
    numbers = {**extrapolate(measured), **report.circumstances()}
    return report.Report(
        name="speed",
        title="Time of behavior policy and F-BRC against CQL (section 5.2)",
        numbers=numbers,
        figure=_draw(numbers),
        text=_describe(numbers),
    )


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
    hours = {name: _UPDATES / np.array(rounds[name]) / 3600.0 for name in _NAMES}
    return {
        "extrapolated_to_updates": _UPDATES,
        "rounds": rounds,
        "updates_per_second": {name: benchmark.spread(rounds[name]) for name in _NAMES},
        "hours": {name: benchmark.spread(values) for name, values in hours.items()},
        "cql_to_fbrc": benchmark.spread(hours["cql"] / (hours["behavior"] + hours["fbrc"])),
        "paper_hours": _PAPER_HOURS,
    }


def _describe(numbers: dict[str, Any]) -> str:
    rows = [["", "updates/s", "hours for 1M updates, extrapolated", "hours in the paper"]]
    for name, label in _NAMES.items():
        rate = benchmark.spread_text(numbers["updates_per_second"][name], digits=1)
        hours = f"{numbers['hours'][name]['median']:.2f}"
        rows.append([label, rate, hours, f"{_PAPER_HOURS[name]:.1f}"])
    paper = _PAPER_HOURS["cql"] / (_PAPER_HOURS["behavior"] + _PAPER_HOURS["fbrc"])
    ratio = benchmark.spread_text(numbers["cql_to_fbrc"], digits=2)
    return (
        f"CQL's time, divided by that of behavior policy and F-BRC together, is {ratio}; in the "
        f"paper, on 8 cores of an AMD EPYC 7B12, {paper:.2f}.\n\n"
        f"{tables.table(rows, markdown=True)}\n\n"
        f"Medians and quartiles of {len(numbers['rounds']['fbrc'])} rounds. The hours are "
        "extrapolated from the updates/s, seconds of updates on one batch; no run of 1M updates "
        "was made, and loading, evaluation and logging are not in them. CQL is TF-Agents' "
        "`CqlSacAgent` with 10 sampled actions and the networks of F-BRC."
    )


@figures.styled
def _draw(numbers: dict[str, Any]) -> Figure:
    figure = Figure(figsize=(11.0, 3.8))
    ours = {name: entry["median"] for name, entry in numbers["hours"].items()}
    titles = {
        f"this machine ({numbers['machine']['cores']} cores): extrapolated": ours,
        "the paper: 8 cores of an AMD EPYC 7B12": _PAPER_HOURS,
    }
    panels = figure.subplots(1, 2, sharey=True)
    for axes, (title, hours) in zip(panels, titles.items()):
        axes.set(title=title, xlabel="hours")
        for method, stages in _METHODS.items():
            end = 0.0
            for name in stages:
                options = {"color": _COLORS[name], "label": _NAMES[name]}
                axes.barh(method, hours[name], left=end, height=0.6, **options)
                end += hours[name]
            axes.text(end, method, f" {end:.1f} h", va="center")
        axes.margins(x=0.18)
    panels[0].invert_yaxis()  # The other one is the same.
    entries = panels[0].get_legend_handles_labels()
    figure.legend(*entries, loc="outside lower center", ncols=3)
    figure.suptitle("Time of 1M updates")
    return figure
