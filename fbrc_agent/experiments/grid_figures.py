"""Pictures of grids: a panel per task, seeds as thin lines and a band, their mean a thick line."""

import itertools
from collections.abc import Iterator, Mapping, Sequence
from typing import Callable

from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from fbrc_agent.experiments import curves, summaries
from fbrc_agent.experiments.summaries import Groups, Outcome

_PANEL_SIZE = (5.6, 4.2)  # inches
_COLORS = (curves.BLUE, curves.ORANGE, curves.GREEN, curves.PURPLE, curves.SKY, curves.YELLOW)

_Settings = Mapping[str, list[Outcome]]


def scores(groups: Groups, title: str) -> Figure:
    """Draws the scores."""
    return _draw(groups, title, [_draw_scores], most_columns=3)


def numbers(groups: Groups, title: str, unit: str, symbols: Mapping[str, str]) -> Figure:
    """Draws logged numbers on a logarithmic axis.

    Args:
      groups: Outcomes.
      title: Title of the figure.
      unit: Label of the vertical axes.
      symbols: Labels by the names of the numbers, each with a line style of its own.
    """

    def draw(axes: Axes, task: str, settings: _Settings) -> None:
        curves.style_panel(axes, task, unit)
        for color, outcomes in _colored(settings):
            for style, (name, symbol) in zip(("-", "--", ":"), symbols.items()):
                label = f"{symbol}, {outcomes[0].setting.label}"
                curves.draw_seeds(axes, _runs(outcomes), name, color, label, style=style)
        _mark_nan(axes, settings, next(iter(symbols)))
        axes.set_yscale("log")

    return _draw(groups, title, [draw], most_columns=3)


def scores_and_pretraining(
    groups: Groups, title: str, stage: str, name: str, panel: str, unit: str
) -> Figure:
    """Draws the scores, each with its pretrained policy's, beside a number of the pretraining.

    Args:
      groups: Outcomes.
      title: Title of the figure.
      stage: The algorithm that is trained first.
      name: Name of its number.
      panel: Title of the number's panels, after the task.
      unit: Label of their vertical axes.
    """

    def draw_scores(axes: Axes, task: str, settings: _Settings) -> None:
        _draw_scores(axes, f"{task} (dashed: pretrained policy)", settings, each_level=True)

    def draw_number(axes: Axes, task: str, settings: _Settings) -> None:
        curves.style_panel(axes, f"{task}: {panel}", unit)
        for color, outcomes in _colored(settings):
            curves.draw_seeds(axes, [o.pretrained[stage] for o in outcomes], name, color)

    return _draw(groups, title, [draw_scores, draw_number], most_columns=2)


def _draw(
    groups: Groups,
    title: str,
    draws: Sequence[Callable[[Axes, str, _Settings], None]],
    most_columns: int,
) -> Figure:
    """Draws so many panels for each task, the title and one legend for all, below them."""
    panels = [(draw, *entry) for entry in groups.items() for draw in draws]
    columns = min(len(panels), most_columns)
    rows = -(-len(panels) // columns)
    # Titles and the legend take the same room for any number of panels.
    size = (max(columns, 1.6) * _PANEL_SIZE[0], rows * _PANEL_SIZE[1] + 1.0)
    figure = Figure(figsize=size, dpi=curves.DPI, layout="constrained")
    entries: dict[str, Artist] = {}
    for place, (draw, task, settings) in enumerate(panels, 1):
        axes = figure.add_subplot(rows, columns, place)
        draw(axes, task, settings)
        axes.set_xlim(left=0)
        for handle, label in zip(*axes.get_legend_handles_labels()):
            entries.setdefault(label, handle)
    count = max(len(outcomes) for by_name in groups.values() for outcomes in by_name.values())
    seeds = f"{count} seeds (thin), their mean (thick), from lowest to highest (band)"
    figure.suptitle(f"{title}\n{seeds if count > 1 else '1 seed'}", fontsize=12)
    legend = entries.values(), entries.keys()
    figure.legend(*legend, loc="outside lower center", ncols=3, fontsize=9)
    return figure


def _draw_scores(axes: Axes, title: str, settings: _Settings, each_level: bool = False) -> None:
    curves.style_panel(axes, title, "normalized score")
    first, *_ = settings.values()
    for color, outcomes in _colored(settings):
        label = outcomes[0].setting.label
        runs = _runs(outcomes)
        curves.draw_seeds(axes, runs, "normalized_score", color, label, marker="o")
        if each_level or outcomes is first:
            level = summaries.mean_and_std(o.pretrained_score for o in outcomes)["mean"]
            labels = ", ".join(run.label for run in outcomes[0].pretrained.values())
            common = (curves.GRAY, "--", f"{labels}, sampled")
            curves.draw_level(axes, level, *((color, "--") if each_level else common))
    _mark_nan(axes, settings, "normalized_score")
    level = summaries.data_of(first)["score_mean"]
    curves.draw_level(axes, level, curves.GRAY, ":", "mean of the data")


def _colored(settings: _Settings) -> Iterator[tuple[str, list[Outcome]]]:
    """Yields the color of each setting, its own or one by the order, and its outcomes."""
    for color, outcomes in zip(itertools.cycle(_COLORS), settings.values()):
        yield outcomes[0].setting.color or color, outcomes


def _runs(outcomes: Sequence[Outcome]) -> list[curves.LoggedRun]:
    return [outcome.run for outcome in outcomes]


def _mark_nan(axes: Axes, settings: _Settings, name: str) -> None:
    """Marks the end of runs that met NaN or infinity, at their last known value."""
    for color, outcomes in _colored(settings):
        for outcome in outcomes:
            if outcome.nan_step is None:
                continue
            height, transform = curves.mean_of_last(outcome.curve(name)[1], 1), axes.transData
            if height is None:  # At the bottom of the panel.
                height, transform = 0.03, axes.get_xaxis_transform()
            axes.plot(
                [outcome.nan_step], [height], "X", ms=10, mec="black", color=color,
                transform=transform, clip_on=False, ls="", label="NaN: the run ended",
            )  # fmt: skip
