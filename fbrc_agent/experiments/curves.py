"""Pictures of grids: a panel per task, seeds as thin lines and a band, their mean a thick line."""

from collections.abc import Mapping, Sequence
from typing import Optional

import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from fbrc_agent.experiments import plot, report, summaries
from fbrc_agent.experiments.summaries import Groups, Outcome

_PANEL_SIZE = (5.6, 4.2)  # inches
_DPI = 100
_MOST_COLUMNS = 3
_SCORE = "normalized score"

# A setting has one color in all pictures.
_COLORS: Mapping[str, str] = {
    "fbrc": report.BLUE,
    "lambda-0": report.ORANGE,
    "lambda-1": report.GREEN,
    "gradient-penalty": report.ORANGE,
    "fisher": report.GREEN,
    "gaussian": report.ORANGE,
    "joint": report.GREEN,
    "shared-pass": report.ORANGE,
}


def scores(groups: Groups, title: str) -> Figure:
    """Draws the scores of the agents."""
    figure, panels = _make_figure(len(groups))
    for axes, (task, settings) in zip(panels, groups.items()):
        _draw_scores(axes, task, settings)
    _finish(figure, panels, title, groups)
    return figure


def gradient_norms(groups: Groups, title: str) -> Figure:
    """Draws ||grad_a O|| (solid) and ||grad_a log mu|| (dashed) at the policy's actions."""
    figure, panels = _make_figure(len(groups))
    for axes, (task, settings) in zip(panels, groups.items()):
        plot.style_panel(axes, task, "mean norm, 1 / unit of action")
        for name, outcomes in settings.items():
            label = outcomes[0].setting.label
            runs = [outcome.agent for outcome in outcomes]
            for key, symbol, style in (
                ("offset_gradient_norm", r"$\|\nabla_a O\|$", "-"),
                ("behavior_gradient_norm", r"$\|\nabla_a \log\mu\|$", "--"),
            ):
                _curves(axes, runs, "fbrc", key, _color(name), f"{symbol}, {label}", style)
        _mark_nan(axes, settings, "offset_gradient_norm")
        axes.set_yscale("log")
    _finish(figure, panels, title, groups)
    return figure


def densities(groups: Groups, title: str) -> Figure:
    """Draws the scores of the agents and the log-likelihoods of their densities."""
    figure, panels = _make_figure(2 * len(groups), most_columns=2)
    for index, (task, settings) in enumerate(groups.items()):
        axes, likelihood = panels[2 * index : 2 * index + 2]
        _draw_scores(axes, f"{task}: F-BRC (dashed: the density sampled)", settings, True)
        plot.style_panel(
            likelihood, f"{task}: fit of the density", "log-likelihood, nats per action"
        )
        for name, outcomes in settings.items():
            runs = [outcome.density for outcome in outcomes]
            _curves(likelihood, runs, "behavior", "log_prob", _color(name), None)
    _finish(figure, panels, title, groups)
    return figure


def _make_figure(num_panels: int, most_columns: int = _MOST_COLUMNS) -> tuple[Figure, list[Axes]]:
    columns = min(num_panels, most_columns)
    rows = -(-num_panels // columns)
    width, height = _PANEL_SIZE
    # Titles and the legend take as much room however many panels there are.
    size = (max(columns, 1.6) * width, rows * height + 1.0)
    figure = Figure(figsize=size, dpi=_DPI, layout="constrained")
    grid = figure.add_gridspec(rows, columns)
    return figure, [figure.add_subplot(grid[i // columns, i % columns]) for i in range(num_panels)]


def _finish(figure: Figure, panels: Sequence[Axes], title: str, groups: Groups) -> None:
    """Adds the title and one legend for all panels, below them."""
    num_seeds = max(len(outcomes) for by_name in groups.values() for outcomes in by_name.values())
    what = "1 seed"
    if num_seeds > 1:
        what = f"{num_seeds} seeds (thin), their mean (thick), from lowest to highest (band)"
    figure.suptitle(f"{title}\n{what}", fontsize=12)
    entries: dict[str, Artist] = {}
    for axes in panels:
        axes.set_xlim(left=0)
        for handle, label in zip(*axes.get_legend_handles_labels()):
            entries.setdefault(label, handle)
    handles, labels = list(entries.values()), list(entries)
    figure.legend(handles, labels, loc="outside lower center", ncols=4, fontsize=9)


def _color(setting: str) -> str:
    return _COLORS.get(setting, report.PURPLE)


def _draw_scores(
    axes: Axes, title: str, settings: Mapping[str, list[Outcome]], each_density: bool = False
) -> None:
    plot.style_panel(axes, title, _SCORE)
    for name, outcomes in settings.items():
        label, color = outcomes[0].setting.label, _color(name)
        runs = [outcome.agent for outcome in outcomes]
        _curves(axes, runs, "fbrc", "normalized_score", color, label, marker="o")
        if each_density:
            level = summaries.mean_and_std([o.density_score for o in outcomes])["mean"]
            _level(axes, level, color, "--", None)
    _mark_nan(axes, settings, "normalized_score")
    first = next(iter(settings.values()))
    if not each_density:
        level = summaries.mean_and_std([o.density_score for o in first])["mean"]
        _level(axes, level, report.GRAY, "--", "behavior density, sampled")
    _level(axes, summaries.data_of(first)["score_mean"], report.GRAY, ":", "mean of the data")


def _level(
    axes: Axes, level: Optional[float], color: str, style: str, label: Optional[str]
) -> None:
    if level is not None:
        axes.axhline(level, color=color, ls=style, lw=1.4, label=label)


def _curves(
    axes: Axes,
    runs: Sequence[plot.LoggedRun],
    stage: str,
    name: str,
    color: str,
    label: Optional[str],
    style: str = "-",
    marker: str = "",
) -> None:
    """Draws seeds as thin lines, the band from lowest to highest, and their mean."""
    for run in runs if len(runs) > 1 else ():
        axes.plot(*run.curve(stage, name), color=color, ls=style, lw=0.7, alpha=0.5)
    steps, values = plot.common_steps(runs, stage, name)
    if len(runs) > 1 and len(steps):
        axes.fill_between(
            steps, values.min(axis=0), values.max(axis=0), color=color, alpha=0.15, lw=0
        )
    dots = marker or ("." if len(steps) == 1 else "")
    mean = values.mean(axis=0) if len(steps) else np.zeros(0)
    axes.plot(steps, mean, color=color, ls=style, lw=2.0, marker=dots, ms=3.5, label=label)


def _mark_nan(axes: Axes, settings: Mapping[str, list[Outcome]], name: str) -> None:
    """Marks the end of runs whose numbers went bad, at their last known value."""
    for outcome in (o for outcomes in settings.values() for o in outcomes):
        if outcome.nan_step is None:
            continue
        _, values = outcome.agent.curve("fbrc", name)
        known = values[np.isfinite(values)]
        if len(known):
            height, transform = known[-1], axes.transData
        else:  # None was known: at the bottom of the panel.
            height, transform = 0.03, axes.get_xaxis_transform()
        color = _color(outcome.setting.name)
        axes.plot(
            [outcome.nan_step], [height], "X", ms=10, mec="black", color=color,
            transform=transform, clip_on=False, ls="", label="NaN: the run ended",
        )  # fmt: skip
