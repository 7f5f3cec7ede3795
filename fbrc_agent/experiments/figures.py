"""`bin/plot`: learning curves of a run, or of several seeds of one setting, as one PNG.

What is drawn is what the runs record of themselves: run.json names the stages, their labels and
their panels, metrics.jsonl has the numbers.
"""

import os
from collections.abc import Mapping, Sequence
from typing import Any, Optional

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from fbrc_agent.environments import tasks
from fbrc_agent.experiments import curves
from fbrc_agent.experiments.curves import LoggedRun
from fbrc_agent.utils import json_files
from fbrc_agent.utils.errors import InputError

_WIDTH, _ROW_HEIGHT = 16.0, 4.0  # inches


def plot(root_dirs: Sequence[str], output: Optional[str] = None) -> str:
    """Draws the evaluation returns, losses and diagnostics of runs.

    Several runs are seeds of one setting: each is a thin line, their mean a thick one, and a band
    goes from the lowest to the highest. Means end where the shortest run ends. An unfinished run is
    drawn up to its last line.

    Args:
      root_dirs: Directories of runs of one algorithm on one task and one data set.
      output: The PNG to write; `curves.png` in the first directory by default.

    Returns:
      The path of the PNG.

    Raises:
      InputError: If a directory holds no run or nothing was logged yet, or the runs differ in
        algorithm, task or data.
    """
    if not root_dirs:
        raise InputError("There is nothing to plot; give the directory of at least one run.")
    runs = [curves.read(root_dir) for root_dir in root_dirs]
    for run in runs:
        _check(run, runs[0])
    output = output or os.path.join(root_dirs[0], "curves.png")
    curves.write_png(output, draw(runs))
    return output


def _check(run: LoggedRun, first: LoggedRun) -> None:
    """Refuses a run without lines, and one that is no seed of the first one's setting."""
    if not run.records:
        metrics = os.path.join(run.root_dir, "metrics.jsonl")
        raise InputError(f"{metrics} has no line yet; there is nothing to plot of this run.")
    for (what, here), there in zip(_describe(run).items(), _describe(first).values()):
        if here != there:
            raise InputError(
                f"{run.root_dir} is a run of {here}, {first.root_dir} of {there}; plot the runs of "
                f"one {what} together."
            )


def _describe(run: LoggedRun) -> dict[str, str]:
    data = run.identity["data"]
    source = f"{data['source']} (checksum {data['checksum'][:12]})"
    return {"algorithm": run.label, "task": run.identity["task"], "data set": source}


def draw(runs: Sequence[LoggedRun]) -> Figure:
    """Returns the figure: returns, then the panels of the algorithm and of its pretraining."""
    stages = runs[0].identity["stages"]
    panels = [(stage["name"], panel) for stage in reversed(stages) for panel in stage["panels"]]
    places = 2 + len(panels)  # The returns take two.
    columns = min((4, 3), key=lambda count: -places % count)  # As few empty places as possible.
    rows = -(-places // columns)
    size = (_WIDTH, rows * _ROW_HEIGHT)
    figure = Figure(figsize=size, dpi=curves.DPI, layout="constrained")
    grid = figure.add_gridspec(rows, columns)
    _draw_returns(figure.add_subplot(grid[0, :2]), runs)
    for place, (stage, panel) in enumerate(panels, 2):
        axes = figure.add_subplot(grid[place // columns, place % columns])
        _draw_panel(axes, runs, stage, panel)
    for axes in figure.axes:
        axes.set_xlim(left=0)
    identity = runs[0].identity
    data, seeds = identity["data"], ", ".join(str(run.identity["seed"]) for run in runs)
    figure.suptitle(
        f"{runs[0].label} on {identity['task']}    data: {data['source']}, "
        f"{data['transitions']:,} transitions    seed{'s' if len(runs) > 1 else ''}: {seeds}",
        fontsize=13,
    )
    return figure


def _draw_returns(axes: Axes, runs: Sequence[LoggedRun]) -> None:
    """Draws the returns, those of data and pretrained policies as levels, and the scores' axis."""
    identity, label = runs[0].identity, runs[0].label
    curves.style_panel(axes, "Evaluation return", "return per episode")
    label += f", mean of {len(runs)} seeds" if len(runs) > 1 else ""
    band = "lowest to highest seed"
    curves.draw_seeds(axes, runs, "return_mean", curves.BLUE, label, marker="o", band=band)
    levels = {"mean of the data": identity["data"]["return_mean"]}
    for stage in identity["stages"][:-1]:
        returns = [_final_return(run, stage["name"]) for run in runs]
        known = [value for value in returns if value is not None]
        levels[stage["label"]] = sum(known) / len(known) if known else None
    for (name, level), color in zip(levels.items(), (curves.GRAY, *curves.COLORS[1:])):
        if level is not None:
            axes.axhline(level, color=color, ls="--", lw=1.4, label=f"{name}: {level:.1f}")
    references = tasks.get_task(identity["task"]).reference_scores
    if references is not None:
        low, width = references[0], (references[1] - references[0]) / 100.0
        functions = (lambda value: (value - low) / width, lambda score: score * width + low)
        score = axes.secondary_yaxis("right", functions=functions)
        score.set_ylabel("normalized score")
    _add_legend(axes)


def _final_return(run: LoggedRun, stage: str) -> Optional[float]:
    """Returns the last mean return of a stage, from the result where another run trained it."""
    value = run.mean_of_last("return_mean", 1, stage)
    if value is None:
        result = json_files.read_json(os.path.join(run.root_dir, "result.json"), ["stages"])
        value = (result or {"stages": {}})["stages"].get(stage, {}).get("return_mean")
    number = np.nan if value is None else float(value)
    return number if np.isfinite(number) else None


def _draw_panel(
    axes: Axes, runs: Sequence[LoggedRun], stage: str, panel: Mapping[str, Any]
) -> None:
    curves.style_panel(axes, panel["title"], panel["unit"], panel["log_scale"])
    for (name, label), color in zip(panel["lines"].items(), curves.COLORS):
        curves.draw_seeds(
            axes, runs, name, color, label if len(panel["lines"]) > 1 else None, stage
        )
    _add_legend(axes)


def _add_legend(axes: Axes) -> None:
    if axes.get_legend_handles_labels()[0]:
        axes.legend(fontsize=9, framealpha=0.85)
