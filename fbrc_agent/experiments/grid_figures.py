"""Pictures of grids: a panel per task, seeds as thin lines and a band, their mean a thick line."""

import itertools
from collections.abc import Iterator, Mapping, Sequence
from typing import Callable, Optional

from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from fbrc_agent.experiments import curves, summaries
from fbrc_agent.experiments.summaries import Groups, Outcome

_PANEL_SIZE = (5.6, 4.2)  # inches
_MOST_COLUMNS = 3
_COLORS = (curves.BLUE, curves.ORANGE, curves.GREEN, curves.PURPLE, curves.SKY, curves.YELLOW)
_STYLES = ("-", "--", ":")

_Settings = Mapping[str, list[Outcome]]


def scores(groups: Groups, title: str) -> Figure:
    """Draws the scores."""
    return _draw(groups, title, (_draw_scores,))


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
            for style, (name, symbol) in zip(_STYLES, symbols.items()):
                label = f"{symbol}, {outcomes[0].setting.label}"
                _draw_seeds(axes, outcomes, name, color, label, style=style)
        _mark_nan(axes, settings, next(iter(symbols)))
        axes.set_yscale("log")

    return _draw(groups, title, (draw,))


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
            runs = [outcome.pretrained[stage] for outcome in outcomes]
            curves.draw_seeds(axes, runs, stage, name, color)

    return _draw(groups, title, (draw_scores, draw_number), most_columns=2)


def _draw(
    groups: Groups,
    title: str,
    draws: Sequence[Callable[[Axes, str, _Settings], None]],
    most_columns: int = _MOST_COLUMNS,
) -> Figure:
    """Draws so many panels for each task, the title and one legend for all, below them."""
    places = len(groups) * len(draws)
    columns = min(places, most_columns)
    rows = -(-places // columns)
    width, height = _PANEL_SIZE
    # Titles and the legend take the same room for any number of panels.
    size = (max(columns, 1.6) * width, rows * height + 1.0)
    figure = Figure(figsize=size, dpi=curves.DPI, layout="constrained")
    for place in range(places):
        axes = figure.add_subplot(rows, columns, place + 1)
        task, settings = list(groups.items())[place // len(draws)]
        draws[place % len(draws)](axes, task, settings)
    num_seeds = max(len(outcomes) for by_name in groups.values() for outcomes in by_name.values())
    what = "1 seed"
    if num_seeds > 1:
        what = f"{num_seeds} seeds (thin), their mean (thick), from lowest to highest (band)"
    figure.suptitle(f"{title}\n{what}", fontsize=12)
    entries: dict[str, Artist] = {}
    for axes in figure.axes:
        axes.set_xlim(left=0)
        for handle, label in zip(*axes.get_legend_handles_labels()):
            entries.setdefault(label, handle)
    figure.legend(
        *(entries.values(), entries.keys()),
        loc="outside lower center",
        ncols=3,
        fontsize=9,
    )
    return figure


def _draw_scores(axes: Axes, title: str, settings: _Settings, each_level: bool = False) -> None:
    curves.style_panel(axes, title, "normalized score")
    for color, outcomes in _colored(settings):
        label = outcomes[0].setting.label
        _draw_seeds(axes, outcomes, "normalized_score", color, label, marker="o")
        if each_level:
            curves.draw_level(axes, _pretrained_score(outcomes), color, "--")
    _mark_nan(axes, settings, "normalized_score")
    first = next(iter(settings.values()))
    if not each_level:
        label = f"{_pretrained_label(first)}, sampled"
        curves.draw_level(axes, _pretrained_score(first), curves.GRAY, "--", label)
    level = summaries.data_of(first)["score_mean"]
    curves.draw_level(axes, level, curves.GRAY, ":", "mean of the data")


def _colored(settings: _Settings) -> Iterator[tuple[str, list[Outcome]]]:
    """Yields the color of each setting, its own or one by the order, and its outcomes."""
    for color, outcomes in zip(itertools.cycle(_COLORS), settings.values()):
        yield outcomes[0].setting.color or color, outcomes


def _pretrained_score(outcomes: Sequence[Outcome]) -> Optional[float]:
    return summaries.mean_and_std(outcome.pretrained_score for outcome in outcomes)["mean"]


def _pretrained_label(outcomes: Sequence[Outcome]) -> str:
    return ", ".join(run.label for run in outcomes[0].pretrained.values())


def _draw_seeds(
    axes: Axes,
    outcomes: Sequence[Outcome],
    name: str,
    color: str,
    label: str,
    style: str = "-",
    marker: str = "",
) -> None:
    runs = [outcome.run for outcome in outcomes]
    curves.draw_seeds(axes, runs, runs[0].algorithm, name, color, label, style, marker)


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
