"""Pictures of grids: panels for each task, seeds as thin lines and a band, their mean thick."""

import itertools
from collections.abc import Iterator, Mapping, Sequence
from typing import Callable

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
    for color, cell in _colored(cells):
        _draw_pretrained_score(axes, cell, color)


def numbers(unit: str, symbols: Mapping[str, str]) -> Panel:
    """Returns a panel of logged numbers on a logarithmic axis.

    Args:
      unit: Label of the vertical axis.
      symbols: Labels by the names of the numbers, each with a line style of its own.
    """

    def panel(axes: Axes, task: str, cells: Sequence[Cell]) -> None:
        curves.style_panel(axes, task, unit)
        for color, cell in _colored(cells):
            for style, (name, symbol) in zip(("-", "--", ":"), symbols.items()):
                label = f"{symbol}, {cell[0].run.setting.label}"
                curves.draw_seeds(axes, _logs(cell), name, color, label, style=style)
        _mark_nan(axes, cells, next(iter(symbols)))
        axes.set_yscale("log")

    return panel


def pretraining(stage: str, name: str, title: str, unit: str) -> Panel:
    """Returns a panel of a number of the algorithm that is trained first.

    Args:
      stage: The algorithm's name.
      name: Name of the number.
      title: Title, after the task.
      unit: Label of the vertical axis.
    """

    def panel(axes: Axes, task: str, cells: Sequence[Cell]) -> None:
        curves.style_panel(axes, f"{task}: {title}", unit)
        for color, cell in _colored(cells):
            curves.draw_seeds(axes, [o.pretrained[stage] for o in cell], name, color)

    return panel


def _draw_scores(axes: Axes, cells: Sequence[Cell]) -> None:
    for color, cell in _colored(cells):
        label = cell[0].run.setting.label
        curves.draw_seeds(axes, _logs(cell), "normalized_score", color, label, marker="o")
    _mark_nan(axes, cells, "normalized_score")
    level = summaries.data_of(cells[0][0])["score_mean"]
    curves.draw_level(axes, level, curves.GRAY, ":", "mean of the data")


def _draw_pretrained_score(axes: Axes, cell: Cell, color: str, label: str = "") -> None:
    level = summaries.mean_and_std(o.numbers["pretrained_score"] for o in cell)["mean"]
    curves.draw_level(axes, level, color, "--", label or None)


def _colored(cells: Sequence[Cell]) -> Iterator[tuple[str, Cell]]:
    """Yields each cell after the color of its setting, its own or one by the order."""
    for color, cell in zip(itertools.cycle(curves.COLORS), cells):
        yield cell[0].run.setting.color or color, cell


def _logs(cell: Cell) -> list[curves.LoggedRun]:
    return [outcome.log for outcome in cell]


def _mark_nan(axes: Axes, cells: Sequence[Cell], name: str) -> None:
    """Marks the end of runs that met NaN or infinity, at their last known value."""
    for color, cell in _colored(cells):
        for outcome in cell:
            step, height = outcome.numbers["nan_step"], outcome.log.mean_of_last(name)
            transform = axes.transData
            if height is None:  # At the bottom of the panel.
                height, transform = 0.03, axes.get_xaxis_transform()
            if step is not None:
                axes.plot(
                    [step], [height], "X", ms=10, mec="black", color=color, clip_on=False,
                    transform=transform, ls="", label="NaN: the run ended",
                )  # fmt: skip
