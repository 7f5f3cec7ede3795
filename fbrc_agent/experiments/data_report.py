"""`bin/data`: what a data set holds, in tables, warnings and a picture."""

import os
from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from fbrc_agent.datasets import inspection
from fbrc_agent.datasets.offline_data import OfflineData
from fbrc_agent.experiments import figures
from fbrc_agent.utils import tables

_STATISTICS = ("least", "5%", "mean", "95%", "most")
_BINS = 50
# Rows of which the picture and the quantiles of columns are taken, evenly spaced.
_MOST_ROWS = 200_000


def describe(data: OfflineData) -> str:
    """Returns the tables of a data set and what in it may spoil training.

    Returns are sums of the rewards of an episode's transitions; an episode that a time limit or the
    end of the file cut ends without a terminal.
    """
    rows = data.num_transitions if data.num_rows is None else data.num_rows
    terminals = int(
        np.count_nonzero(data.discounts[np.append(data.episode_starts[1:], 0) - 1] == 0)
    )
    episodes = len(data.episode_starts)
    quantities = {
        "return": _returns(data),
        "length": data.episode_lengths,
        "reward": data.rewards,
    }
    parts = [
        f"{data.source}: {data.num_transitions} transitions of {rows} rows, {episodes} episodes, "
        f"{terminals} with a terminal end, {episodes - terminals} cut",
        _table("", quantities),
        _table("observations", _columns(data.observations)),
        _table("actions", _columns(data.actions)),
        f"bounds of the actions: {data.action_minimum.tolist()} to {data.action_maximum.tolist()}",
    ]
    sentences = inspection.sentences(data.findings)
    parts.append("\n".join(f"warning: {each}" for each in sentences) or "no warnings")
    return "\n\n".join(parts)


def draw(data: OfflineData, path: str) -> str:
    """Draws histograms of returns, lengths, rewards and actions, and observations by column."""
    figures.write_png(path, _figure(data))
    return path


def default_picture(source: str) -> str:
    """Returns the name of the picture of a source, in the working directory."""
    stem = os.path.splitext(os.path.basename(source.rstrip("/*")))[0]
    return f"{stem.replace(':', '_') or 'data'}.png"


@figures.styled
def _figure(data: OfflineData) -> Figure:
    figure = Figure(figsize=(16, 9))
    grid = figure.add_gridspec(2, 3)
    for place, (title, unit, values) in enumerate(
        [
            ("Returns of episodes", "sum of rewards", _returns(data)),
            ("Lengths of episodes", "transitions", data.episode_lengths),
            ("Rewards", "reward", _sample(data.rewards)),
        ]
    ):
        axes = figure.add_subplot(grid[0, place])
        axes.hist(values, bins=_BINS, color=figures.BLUE)
        axes.set(title=title, xlabel=unit, ylabel="count")
    _draw_columns(figure.add_subplot(grid[1, :2]), "Observations", data.observations)
    _draw_columns(figure.add_subplot(grid[1, 2]), "Actions", data.actions)
    figure.suptitle(f"{data.source}: {data.num_transitions:,} transitions")
    return figure


def _draw_columns(axes: Axes, title: str, array: np.ndarray) -> None:
    """Draws each column as a box from its 25% to its 75%, with lines from 5% to 95%."""
    boxes = axes.boxplot(
        _sample(array),
        whis=(5, 95),
        showfliers=False,
        positions=range(array.shape[1]),
        patch_artist=True,
        manage_ticks=False,
    )
    for box in boxes["boxes"]:
        box.set_facecolor(figures.SKY)
    axes.set(title=f"{title}, 5% to 95%", xlabel="column", ylabel="value")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))


def _returns(data: OfflineData) -> np.ndarray:
    return np.add.reduceat(data.rewards.astype(np.float64), data.episode_starts)


def _sample(array: np.ndarray) -> np.ndarray:
    return array[:: max(1, len(array) // _MOST_ROWS)]


def _columns(array: np.ndarray) -> dict[str, np.ndarray]:
    return {str(i): column for i, column in enumerate(array.T)}


def _table(head: str, quantities: dict[str, np.ndarray]) -> str:
    rows: list[Sequence[str]] = [[head, *_STATISTICS]]
    for name, values in quantities.items():
        low, high = np.quantile(_sample(values), [0.05, 0.95])
        numbers = (values.min(), low, values.mean(dtype=np.float64), high, values.max())
        rows.append([name, *(f"{number:.5g}" for number in numbers)])
    return tables.table(rows, align="lr")
