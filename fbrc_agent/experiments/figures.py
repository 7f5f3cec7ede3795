"""Pictures: learning curves of a run or of several seeds (`bin/plot`), and of grids.

`bin/plot` draws what the runs record of themselves: run.json names the stages, their labels and
their panels, metrics.jsonl has the numbers. A grid's picture has panels for each task, with the
seeds of each setting in its color.
"""

import functools
import os
from collections.abc import Mapping, Sequence
from typing import Any, Callable, Optional

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter, MaxNLocator

from fbrc_agent.environments import tasks
from fbrc_agent.experiments import curves, summaries
from fbrc_agent.experiments.curves import LoggedRun
from fbrc_agent.experiments.summaries import Cell
from fbrc_agent.utils import atomic_files, json_files, tables
from fbrc_agent.utils.errors import InputError

# Okabe and Ito's colors, which readers who do not see red and green can distinguish.
BLUE, ORANGE, GREEN, GRAY = "#0072B2", "#D55E00", "#009E73", "#555555"
PURPLE, SKY, YELLOW = "#CC79A7", "#56B4E9", "#E69F00"
COLORS = (BLUE, ORANGE, GREEN, PURPLE, SKY, YELLOW)
# A decorator of functions that make figures: what all of these have in common.
styled = matplotlib.rc_context(
    {
        "axes.axisbelow": True,
        "axes.grid": True,
        "figure.constrained_layout.use": True,
        "grid.color": "0.9",
        "legend.fontsize": 9,
    }
)
_PANEL_SIZE = (5.3, 4.0)  # inches
# Draws the cells of a task.
Panel = Callable[[Axes, str, Sequence[Cell]], None]


def plot(root_dirs: Sequence[str], output: Optional[str] = None) -> str:
    """Draws the evaluation returns, losses and diagnostics of runs.

    Several runs are seeds of one setting: each is a thin line, their mean a thick one, and a band
    goes from the lowest to the highest. Means end where the shortest run ends. An unfinished run is
    drawn up to its last line.

    Args:
      root_dirs: Directories of runs of one algorithm on one task and one data set; at least one.
      output: The PNG to write; `curves.png` in the first directory by default.

    Returns:
      The path of the PNG.

    Raises:
      InputError: If a directory holds no run or nothing was logged yet, or the runs differ in
        algorithm, task or data.
    """
    runs = [curves.read(root_dir) for root_dir in root_dirs]
    for run in runs:
        if not run.lines:
            metrics = os.path.join(run.root_dir, "metrics.jsonl")
            raise InputError(f"{metrics} has no line yet; there is nothing to plot of this run.")
        pairs = zip(_setting(run), _setting(runs[0]))
        for what, (here, there) in zip(("algorithm", "task", "data set"), pairs):
            if here != there:
                raise InputError(
                    f"{run.root_dir} is a run of {here}, {root_dirs[0]} of {there}; plot the runs "
                    f"of one {what} together."
                )
    output = output or os.path.join(root_dirs[0], "curves.png")
    write_png(output, draw(runs))
    return output


def _setting(run: LoggedRun) -> tuple[str, str, str]:
    data = run.identity["data"]
    source = f"{data['source']} (checksum {data['checksum'][:12]})"
    return run.label, run.identity["task"], source


def draw(runs: Sequence[LoggedRun]) -> Figure:
    """Returns the figure: returns, then the panels of the algorithm and of its pretraining."""
    identity, stages = runs[0].identity, runs[0].identity["stages"]
    panels = [functools.partial(_draw_returns, runs=runs)] + [
        functools.partial(_draw_panel, runs=runs, stage=stage["name"], panel=panel)
        for stage in reversed(stages)
        for panel in stage["panels"]
    ]
    columns = min((4, 3), key=lambda count: -(len(panels) + 1) % count)  # Few empty places.
    data, seeds = identity["data"], ", ".join(str(run.identity["seed"]) for run in runs)
    task = "" if identity["task"] is None else f" on {identity['task']}"
    title = (
        f"{runs[0].label}{task}    data: {data['source']}, "
        f"{data['transitions']:,} transitions    seed{'s' if len(runs) > 1 else ''}: {seeds}"
    )
    return draw_panels(panels, title, columns, is_first_wide=True)


def _draw_returns(axes: Axes, runs: Sequence[LoggedRun]) -> None:
    """Draws the returns, those of data and pretrained policies as levels, and the scores' axis."""
    identity = runs[0].identity
    title = f"Evaluation return, {describe_seeds(len(runs))}"
    style_panel(axes, title, "return per episode")
    draw_seeds(axes, runs, "return_mean", BLUE, runs[0].label, marker="o")
    if any("average_return_mean" in line for run in runs for line in run.lines):
        draw_seeds(
            axes, runs, "average_return_mean", COLORS[-1], "average of the actor", marker="s"
        )
    levels = {"mean of the data": identity["data"]["return_mean"]}
    for stage in identity["stages"][:-1]:
        returns = [_final_return(run, stage["name"]) for run in runs]
        levels[stage["label"]] = summaries.mean_and_std(returns)["mean"]
    for (name, level), color in zip(levels.items(), (GRAY, *COLORS[1:])):
        draw_level(axes, level, color, f"{name}: {tables.number(level)}")
    given = identity.get("reference_scores")
    references = tasks.get_task(identity["task"], given).reference_scores
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
    return None if value is None else float(value)


def _draw_panel(
    axes: Axes, runs: Sequence[LoggedRun], stage: str, panel: Mapping[str, Any]
) -> None:
    style_panel(axes, panel["title"], panel["unit"], panel["log_scale"])
    lines = panel["lines"]
    for (name, label), color in zip(lines.items(), COLORS):
        draw_seeds(axes, runs, name, color, label if len(lines) > 1 else None, stage)
    _add_legend(axes)


def _add_legend(axes: Axes) -> None:
    if axes.get_legend_handles_labels()[0]:
        axes.legend()


@styled
def draw_grid(cells: Sequence[Cell], title: str, panels: Sequence[Panel]) -> Figure:
    """Draws panels for each task, the title and one legend for all, below them."""
    by_task: dict[str, list[Cell]] = {}
    for cell in cells:
        by_task.setdefault(cell.task, []).append(cell)
    drawings = [
        lambda axes, panel=panel, task=task, cells=of_task: panel(axes, task, cells)
        for task, of_task in by_task.items()
        for panel in panels
    ]
    columns = min(len(drawings), 3 // len(panels) * len(panels))
    seeds = describe_seeds(max(len(cell.outcomes) for cell in cells))
    figure = draw_panels(drawings, f"{title}\n{seeds}", columns)
    entries = {
        label: handle
        for axes in figure.axes
        for handle, label in zip(*axes.get_legend_handles_labels())
    }
    figure.legend(entries.values(), entries.keys(), loc="outside lower center", ncols=3)
    return figure


def scores(axes: Axes, task: str, cells: Sequence[Cell]) -> None:
    """Draws the scores, and those of the data and of the pretrained policies as levels.

    The pretrained policy is gray if all settings take the same, else each has its setting's color.
    """
    numbers("", "normalized score", {"normalized_score": ""}, marker="o")(axes, task, cells)
    draw_level(axes, cells[0].data()["score_mean"], GRAY, "mean of the data", ":")
    is_shared = len({tuple(cell.outcomes[0].run.pretrained.values()) for cell in cells}) == 1
    for cell in cells:
        level = summaries.mean_and_std(cell.values("pretrained_score"))["mean"]
        policies = ", ".join(log.label for log in cell.outcomes[0].pretrained.values())
        color = GRAY if is_shared else cell.setting.color
        draw_level(axes, level, color, f"{policies}, sampled")


def numbers(
    title: str,
    unit: str,
    lines: Mapping[str, str],
    log_scale: bool = False,
    stage: Optional[str] = None,
    marker: str = "",
) -> Panel:
    """Returns a panel of logged numbers; runs that met NaN or infinity have a cross at its bottom.

    Args:
      title: Title, after the task.
      unit: Label of the vertical axis.
      lines: Labels, before the setting's, by the names of the numbers; each has a line style.
      log_scale: Whether the vertical axis is logarithmic.
      stage: An algorithm that is trained first, whose numbers they are.
      marker: Marker of the means.
    """

    def panel(axes: Axes, task: str, cells: Sequence[Cell]) -> None:
        style_panel(axes, task + title, unit, log_scale)
        for cell in cells:
            logs = [o.pretrained[stage] if stage else o.log for o in cell.outcomes]
            for style, (name, symbol) in zip(("-", "--", ":"), lines.items()):
                label, color = symbol + cell.setting.label, cell.setting.color
                draw_seeds(axes, logs, name, color, label, stage, ls=style, marker=marker)
            steps = [log.event_step("not_finite") for log in logs]
            for step in (step for step in steps if step is not None):
                axes.plot(
                    step, 0.03, "X", ms=10, mec="black", color=cell.setting.color, clip_on=False,
                    transform=axes.get_xaxis_transform(), label="NaN: the run ended",
                )  # fmt: skip

    return panel


@styled
def draw_panels(
    panels: Sequence[Callable[[Axes], None]], title: str, columns: int, is_first_wide: bool = False
) -> Figure:
    """Draws panels over updates, row by row, below a title.

    Args:
      panels: What draws each of them.
      title: The title.
      columns: Panels in a row.
      is_first_wide: Whether the first panel takes two places.
    """
    rows = -(-(len(panels) + is_first_wide) // columns)
    width, height = _PANEL_SIZE
    # Titles and legends take the same room for any number of panels.
    figure = Figure(figsize=(max(columns, 1.6) * width, rows * height + 0.8))
    for i, panel in enumerate(panels, 1):
        first = i if i == 1 else i + is_first_wide
        axes = figure.add_subplot(rows, columns, (first, i + is_first_wide))
        panel(axes)
        axes.set_xlim(left=0)
    figure.suptitle(title)
    return figure


def describe_seeds(count: int) -> str:
    """Returns what the lines of `draw_seeds` are, for the title of a figure."""
    lines = "thin lines, their mean a thick one, a band from lowest to highest"
    return f"{count} seeds: {lines}" if count > 1 else "1 seed"


def draw_seeds(
    axes: Axes,
    runs: Sequence[LoggedRun],
    name: str,
    color: str,
    label: Optional[str] = None,
    stage: Optional[str] = None,
    **style: Any,
) -> None:
    """Draws a number of runs: seeds as thin lines, their band, and the mean as a thick line.

    The band goes from the lowest to the highest seed. Means end where the shortest run ends. A
    single run is one line.

    Args:
      axes: Where to draw.
      runs: Seeds of one setting.
      name: Name of the number in metrics.jsonl.
      color: Color of all lines.
      label: Entry in the legend.
      stage: Stage of the number; the last one by default.
      **style: Of the mean, or of a single run, as of `Axes.plot`.
    """
    curves = [run.curve(name, stage) for run in runs]
    points = [dict(zip(*curve)) for curve in curves]
    steps = sorted(set.intersection(*map(set, points)))
    values = np.array([[curve[step] for step in steps] for curve in points])
    if len(runs) > 1:
        for curve in curves:
            axes.plot(*curve, color=color, ls=style.get("ls"), lw=0.7, alpha=0.5)
        ends = values.min(axis=0), values.max(axis=0)
        axes.fill_between(steps, *ends, color=color, alpha=0.15, lw=0)
    if len(steps) == 1:  # A line of one point is not visible.
        style["marker"] = style.get("marker") or "."
    axes.plot(steps, values.mean(axis=0), color=color, lw=1.8, ms=3.5, label=label, **style)


def draw_level(
    axes: Axes, level: Optional[float], color: str, label: str, style: str = "--"
) -> None:
    """Draws a horizontal line, if its height is known."""
    if level is not None:
        axes.axhline(level, color=color, ls=style, lw=1.4, label=label)


def style_panel(axes: Axes, title: str, unit: str, log_scale: bool = False) -> None:
    """Gives a panel over updates its title, labels and scales."""
    scale = "log" if log_scale else "linear"
    axes.set(title=title, xlabel="updates", ylabel=unit, yscale=scale)
    axes.xaxis.set_major_locator(MaxNLocator(5, steps=[1, 2, 5, 10], integer=True))
    axes.xaxis.set_major_formatter(EngFormatter(sep=""))


def write_png(path: str, figure: Figure) -> None:
    """Draws a figure into a PNG; pyplot, its backends and a display are not needed."""
    with atomic_files.replacing(path) as temporary, open(temporary, "wb") as file:
        FigureCanvasAgg(figure).print_png(file)
