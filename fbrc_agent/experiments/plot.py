"""Learning curves of a run, or of several seeds of one setting, as one PNG."""

import math
import os
from collections.abc import Sequence
from typing import Any, NamedTuple, Optional

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

from fbrc_agent.environments import d4rl
from fbrc_agent.training import run_directory, run_log
from fbrc_agent.utils import atomic_files, json_files
from fbrc_agent.utils.errors import InputError

_SIZE = (16.0, 8.25)  # inches
_DPI = 100
# Okabe and Ito's colors: told apart without seeing red and green.
_BLUE, _ORANGE, _GREEN, _GRAY = "#0072B2", "#D55E00", "#009E73", "#555555"


class LoggedRun(NamedTuple):
    """What is on disk of one run."""

    root_dir: str
    identity: dict[str, Any]
    records: list[dict[str, Any]]
    behavior_return: Optional[float]

    def curve(self, stage: str, name: str) -> tuple[np.ndarray, np.ndarray]:
        """Returns the steps [n] and values [n] of a number; inf and nan become gaps."""
        points = [
            (record["step"], float(record[name]))
            for record in self.records
            if record["stage"] == stage and record.get(name) is not None
        ]
        steps, values = np.array(points, np.float64).reshape(-1, 2).T
        return steps, np.where(np.isfinite(values), values, np.nan)


def plot(root_dirs: Sequence[str], output: Optional[str] = None) -> str:
    """Draws the evaluation returns, losses and diagnostics of runs.

    Several runs are seeds of one setting: each is a thin line, their mean a thick one; the band
    around the mean return goes from the lowest to the highest seed. Means end where the shortest
    run ends. An unfinished run is drawn as far as it has come.

    Args:
      root_dirs: Directories of runs of one task and one data set.
      output: The PNG to write; `curves.png` in the first directory by default.

    Returns:
      The path of the PNG.

    Raises:
      InputError: If a directory holds no run or nothing was logged yet, or the runs differ in task
        or data.
    """
    if not root_dirs:
        raise InputError("There is nothing to plot; give the directory of at least one run.")
    runs = [_read(root_dir) for root_dir in root_dirs]
    _check_one_setting(runs)
    output = output or os.path.join(root_dirs[0], "curves.png")
    write_png(output, _draw(runs))
    return output


def write_png(path: str, figure: Figure) -> None:
    """Draws a figure into a PNG; pyplot, its backends and a display are not needed."""
    with atomic_files.replacing(path) as temporary, open(temporary, "wb") as file:
        FigureCanvasAgg(figure).print_png(file)


def _read(root_dir: str) -> LoggedRun:
    identity = run_directory.read_identity(root_dir)
    records = run_log.read_metrics(root_dir)
    if not records:
        metrics = os.path.join(root_dir, "metrics.jsonl")
        raise InputError(f"{metrics} has no line yet; there is nothing to plot of this run.")
    return LoggedRun(root_dir, identity, records, _behavior_return(root_dir, records))


def _behavior_return(root_dir: str, records: list[dict[str, Any]]) -> Optional[float]:
    """Returns what the behavior policy reached; from the result where another run fitted it."""
    for record in reversed(records):
        if record["stage"] == "behavior" and "return_mean" in record:
            return float(record["return_mean"])
    path = os.path.join(root_dir, "result.json")
    result = json_files.read_json(path, ["stages.behavior.return_mean"])
    value = result and result["stages"]["behavior"]["return_mean"]
    return None if value is None else float(value)


def _check_one_setting(runs: Sequence[LoggedRun]) -> None:
    first = runs[0]
    for run in runs[1:]:
        if run.identity["task"] != first.identity["task"]:
            raise InputError(
                f"{run.root_dir} is a run of {run.identity['task']}, {first.root_dir} of "
                f"{first.identity['task']}; plot the runs of one task together."
            )
        if run.identity["data"]["checksum"] != first.identity["data"]["checksum"]:
            raise InputError(
                f"{run.root_dir} was trained on {run.identity['data']['source']}, {first.root_dir} "
                f"on other data, {first.identity['data']['source']}; plot the runs of one data set "
                "together."
            )


def _draw(runs: Sequence[LoggedRun]) -> Figure:
    figure = Figure(figsize=_SIZE, dpi=_DPI, layout="constrained")
    grid = figure.add_gridspec(2, 4)
    _draw_returns(figure.add_subplot(grid[0, :2]), runs)
    _draw_losses(figure.add_subplot(grid[0, 2]), runs)
    _draw_gradient_norms(figure.add_subplot(grid[0, 3]), runs)

    axes = style_panel(figure.add_subplot(grid[1, 0]), "Value of actions", "Q, units of return")
    _lines(axes, runs, "fbrc", "q_policy", _BLUE, "a ~ policy")
    _lines(axes, runs, "fbrc", "q_data", _ORANGE, "a in the data")
    _legend(axes)
    axes = style_panel(figure.add_subplot(grid[1, 1]), "Policy entropy", "nats")
    _lines(axes, runs, "fbrc", "entropy", _BLUE)
    axes = style_panel(figure.add_subplot(grid[1, 2]), "Policy temperature", "alpha")
    _lines(axes, runs, "fbrc", "alpha", _BLUE)
    axes = style_panel(figure.add_subplot(grid[1, 3]), "Behavior stage", "nats")
    _lines(axes, runs, "behavior", "log_prob", _BLUE, "log-likelihood of the data")
    _lines(axes, runs, "behavior", "entropy", _ORANGE, "entropy")
    _legend(axes)
    for axes in figure.axes:
        axes.set_xlim(left=0)
    figure.suptitle(_title(runs), fontsize=13)
    return figure


def _title(runs: Sequence[LoggedRun]) -> str:
    identity = runs[0].identity
    data, seeds = identity["data"], ", ".join(str(run.identity["seed"]) for run in runs)
    return (
        f"Fisher-BRC on {identity['task']}    data: {data['source']}, {data['transitions']:,} "
        f"transitions    seed{'s' if len(runs) > 1 else ''}: {seeds}"
    )


def _draw_returns(axes: Axes, runs: Sequence[LoggedRun]) -> None:
    style_panel(axes, "Evaluation return", "return per episode")
    if len(runs) > 1:
        steps, values = common_steps(runs, "fbrc", "return_mean")
        if len(steps):
            axes.fill_between(
                steps, values.min(axis=0), values.max(axis=0), color=_BLUE, alpha=0.15, lw=0,
                label="lowest to highest seed",
            )  # fmt: skip
    name = "F-BRC" if len(runs) == 1 else f"F-BRC, mean of {len(runs)} seeds"
    _lines(axes, runs, "fbrc", "return_mean", _BLUE, name, marker="o")
    levels = [
        ("mean of the data", runs[0].identity["data"]["return_mean"], _GRAY),
        ("behavior policy", _mean([run.behavior_return for run in runs]), _ORANGE),
    ]
    for label, level, color in levels:
        if level is not None:
            axes.axhline(level, color=color, ls="--", lw=1.4, label=f"{label}: {level:.1f}")
    references = d4rl.get_task(runs[0].identity["task"]).reference_scores
    if references is not None:
        low, width = references[0], (references[1] - references[0]) / 100.0

        def to_score(returns: Any) -> Any:
            return (returns - low) / width

        def to_return(scores: Any) -> Any:
            return scores * width + low

        score = axes.secondary_yaxis("right", functions=(to_score, to_return))
        score.set_ylabel("normalized score")
    _legend(axes)


def _draw_losses(axes: Axes, runs: Sequence[LoggedRun]) -> None:
    style_panel(axes, "Losses", "critic loss")
    _lines(axes, runs, "fbrc", "critic_loss", _BLUE)
    axes.set_yscale("log")
    _color_axis(axes, _BLUE)
    # Minus a value: of another size than the critic's squared errors, and of either sign.
    right = axes.twinx()
    right.set_ylabel("actor loss")
    _lines(right, runs, "fbrc", "actor_loss", _ORANGE)
    _color_axis(right, _ORANGE)


def _draw_gradient_norms(axes: Axes, runs: Sequence[LoggedRun]) -> None:
    style_panel(axes, "Action gradients", "mean norm, 1 / unit of action")
    _lines(axes, runs, "fbrc", "offset_gradient_norm", _BLUE, r"$\|\nabla_a O(s, a)\|$")
    _lines(axes, runs, "fbrc", "behavior_gradient_norm", _ORANGE, r"$\|\nabla_a \log\mu(a|s)\|$")
    axes.set_yscale("log")
    _legend(axes)


def style_panel(axes: Axes, title: str, unit: str) -> Axes:
    """Gives a panel over updates its title, labels and grid; returns it."""
    axes.set_title(title, fontsize=11)
    axes.set_xlabel("updates")
    axes.set_ylabel(unit)
    axes.xaxis.set_major_locator(MaxNLocator(5, steps=[1, 2, 5, 10], integer=True))
    axes.xaxis.set_major_formatter(FuncFormatter(_thousands))
    axes.grid(True, color="0.9")
    axes.set_axisbelow(True)
    return axes


def _thousands(value: float, _: Optional[int] = None) -> str:
    for unit, letter in ((1e6, "M"), (1e3, "k")):
        if abs(value) >= unit:
            return f"{value / unit:g}{letter}"
    return f"{value:g}"


def _lines(
    axes: Axes,
    runs: Sequence[LoggedRun],
    stage: str,
    name: str,
    color: str,
    label: Optional[str] = None,
    marker: str = "",
) -> None:
    """Draws a number of every run as thin lines and, of several runs, the mean as a thick one."""
    several = len(runs) > 1
    for run in runs:
        steps, values = run.curve(stage, name)
        # A line of one point is not seen.
        dots = marker or ("." if len(steps) == 1 else "")
        axes.plot(
            steps,
            values,
            color=color,
            marker="" if several and len(steps) > 1 else dots,
            ms=3.5,
            lw=0.8 if several else 1.6,
            alpha=0.45 if several else 1.0,
            label=None if several else label,
        )
    if several:
        steps, values = common_steps(runs, stage, name)
        axes.plot(
            steps, values.mean(axis=0), color=color, marker=marker, ms=3.5, lw=2.2, label=label
        )


def common_steps(runs: Sequence[LoggedRun], stage: str, name: str) -> tuple[np.ndarray, np.ndarray]:
    """Returns the steps [n] that all runs have, and their values [runs, n]."""
    curves = [dict(zip(*run.curve(stage, name))) for run in runs]
    steps = sorted(set.intersection(*(set(curve) for curve in curves)))
    values = [[curve[step] for step in steps] for curve in curves]
    return np.array(steps), np.array(values).reshape(len(runs), len(steps))


def _mean(values: Sequence[Optional[float]]) -> Optional[float]:
    known = [v for v in values if v is not None and math.isfinite(v)]
    return float(np.mean(known)) if known else None


def _color_axis(axes: Axes, color: str) -> None:
    axes.yaxis.label.set_color(color)
    axes.tick_params(axis="y", which="both", colors=color)


def _legend(axes: Axes) -> None:
    if axes.get_legend_handles_labels()[0]:
        axes.legend(fontsize=9, framealpha=0.85)
