"""Pictures of grids: panels for each task, seeds as thin lines and a band, their mean thick."""

from collections.abc import Mapping, Sequence
from typing import Callable, Optional

from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from fbrc_agent.experiments import curves, summaries
from fbrc_agent.experiments.summaries import Outcome

_PANEL_SIZE = (5.6, 4.2)  # inches

# A cell of a grid: the seeds of a setting on a task.
Cell = Sequence[Outcome]
# Draws the cells of a task.
Panel = Callable[[Axes, str, Sequence[Cell]], None]


def draw(cells: Sequence[Cell], title: str, panels: Sequence[Panel]) -> Figure:
    """Draws panels for each task, the title and one legend for all, below them."""
    by_task: dict[str, list[Cell]] = {}
    for cell in cells:
        by_task.setdefault(cell[0].run.task, []).append(cell)
    places = [(panel, *entry) for entry in by_task.items() for panel in panels]
    columns = min(len(places), 3 // len(panels) * len(panels))
    rows = -(-len(places) // columns)
    # Titles and the legend take the same room for any number of panels.
    size = (max(columns, 1.6) * _PANEL_SIZE[0], rows * _PANEL_SIZE[1] + 1.0)
    figure = Figure(figsize=size, dpi=curves.DPI, layout="constrained")
    entries: dict[str, Artist] = {}
    for place, (panel, task, of_task) in enumerate(places, 1):
        axes = figure.add_subplot(rows, columns, place)
        panel(axes, task, of_task)
        axes.set_xlim(left=0)
        for handle, label in zip(*axes.get_legend_handles_labels()):
            entries.setdefault(label, handle)
    count = max(map(len, cells))
    seeds = f"{count} seeds (thin), their mean (thick), from lowest to highest (band)"
    figure.suptitle(f"{title}\n{seeds if count > 1 else '1 seed'}", fontsize=12)
    legend = entries.values(), entries.keys()
    figure.legend(*legend, loc="outside lower center", ncols=3, fontsize=9)
    return figure


def scores(axes: Axes, task: str, cells: Sequence[Cell]) -> None:
    """Draws the scores, and those of the data and of the first setting's pretrained policy."""
    curves.style_panel(axes, task, "normalized score")
    _draw_scores(axes, cells)
    policies = ", ".join(log.label for log in cells[0][0].pretrained.values())
    _draw_pretrained_score(axes, cells[0], curves.GRAY, f"{policies}, sampled")


def scores_beside_pretrained(axes: Axes, task: str, cells: Sequence[Cell]) -> None:
    """Draws the scores, each with its pretrained policy's in the same color."""
    curves.style_panel(axes, f"{task} (dashed: pretrained policy)", "normalized score")
    _draw_scores(axes, cells)
    for cell in cells:
        _draw_pretrained_score(axes, cell, cell[0].run.setting.color, None)


def numbers(
    title: str,
    unit: str,
    lines: Mapping[str, str],
    log_scale: bool = False,
    stage: Optional[str] = None,
) -> Panel:
    """Returns a panel of logged numbers.

    Args:
      title: Title, after the task.
      unit: Label of the vertical axis.
      lines: Labels by the names of the numbers, each with a line style of its own; '' for none.
      log_scale: Whether the vertical axis is logarithmic.
      stage: An algorithm that is trained first, whose numbers they are.
    """

    def panel(axes: Axes, task: str, cells: Sequence[Cell]) -> None:
        curves.style_panel(axes, task + title, unit, log_scale)
        for cell in cells:
            setting = cell[0].run.setting
            logs = [o.pretrained[stage] if stage else o.log for o in cell]
            for style, (name, symbol) in zip(("-", "--", ":"), lines.items()):
                label = f"{symbol}, {setting.label}" if symbol else None
                curves.draw_seeds(axes, logs, name, setting.color, label, style=style)
        if stage is None:
            _mark_nan(axes, cells, next(iter(lines)))

    return panel


def _draw_scores(axes: Axes, cells: Sequence[Cell]) -> None:
    for cell in cells:
        setting = cell[0].run.setting
        common = "normalized_score", setting.color, setting.label
        curves.draw_seeds(axes, [outcome.log for outcome in cell], *common, marker="o")
    _mark_nan(axes, cells, "normalized_score")
    level = summaries.data_of(cells[0][0])["score_mean"]
    _draw_level(axes, level, curves.GRAY, ":", "mean of the data")


def _draw_pretrained_score(axes: Axes, cell: Cell, color: str, label: Optional[str]) -> None:
    level = summaries.mean_and_std(o.numbers["pretrained_score"] for o in cell)["mean"]
    _draw_level(axes, level, color, "--", label)


def _draw_level(
    axes: Axes, level: Optional[float], color: str, style: str, label: Optional[str]
) -> None:
    if level is not None:
        axes.axhline(level, color=color, ls=style, lw=1.4, label=label)


def _mark_nan(axes: Axes, cells: Sequence[Cell], name: str) -> None:
    """Marks the end of runs that met NaN or infinity, at their last known value."""
    for outcome in (outcome for cell in cells for outcome in cell):
        step, height = outcome.numbers["nan_step"], outcome.log.mean_of_last(name)
        transform = axes.transData
        if height is None:  # At the bottom of the panel.
            height, transform = 0.03, axes.get_xaxis_transform()
        if step is not None:
            axes.plot(
                [step], [height], "X", ms=10, mec="black", color=outcome.run.setting.color,
                transform=transform, clip_on=False, ls="", label="NaN: the run ended",
            )  # fmt: skip
