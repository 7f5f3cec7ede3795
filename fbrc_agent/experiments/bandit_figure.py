"""The picture of the bandit: landscapes above, where they peak below; BRAC left, F-BRC right."""

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from fbrc_agent.experiments import curves

if TYPE_CHECKING:
    from fbrc_agent.experiments.bandit_landscapes import Landscapes

_SIZE, _DPI = (12.0, 8.6), 100  # inches, dots per inch
_SHOWN = {"brac": (0.0, 0.1, 0.158, 1.0), "fbrc": (0.0, 1e-4, 1e-2, 1.0)}
_COLORS = (curves.ORANGE, curves.GREEN, curves.BLUE, curves.PURPLE)


class _Method(NamedTuple):
    key: str
    name: str
    symbol: str
    formula: str


_METHODS = (
    _Method("brac", "BRAC", r"\alpha", r"R(a) + \alpha\,\log\mu(a)"),
    _Method("fbrc", "F-BRC", r"\lambda", r"O(a) + \log\mu(a)"),
)


def draw(landscapes: "Landscapes", grid: np.ndarray, numbers: dict[str, Any]) -> Figure:
    """Returns the figure.

    Args:
      landscapes: What `bandit_landscapes.train` returned.
      grid: Their actions, `[G]`.
      numbers: What `bandit.measure` returned.
    """
    figure = Figure(figsize=_SIZE, dpi=_DPI, layout="constrained")
    axes = figure.subplots(2, 2, sharey="row")
    for column, method in zip(axes.T, _METHODS):
        _draw_landscapes(column[0], method, getattr(landscapes, method.key), grid, numbers)
        _draw_peaks(column[1], method, numbers)
    axes[0, 0].set_ylabel("landscape, shifted to r's mean in the data")
    axes[1, 0].set_ylabel("|a| where the landscape peaks")
    seeds = numbers["settings"]["seeds"]
    figure.suptitle(
        f"Bandit, r(a) = |a| - 0.125, data in [-0.25, 0.25], {seeds} seeds: "
        "the best action in the data is at ±0.25",
        fontsize=13,
    )
    return figure


def _draw_landscapes(
    axes: Axes, method: _Method, values: np.ndarray, grid: np.ndarray, numbers: dict[str, Any]
) -> None:
    """Draws the median of the seeds, a band from the lowest to the highest, and each one's peak."""
    reward = np.abs(grid) - 0.125
    inside = np.abs(grid) <= 0.25
    aligned = values - values[..., inside].mean(axis=-1, keepdims=True) + reward[inside].mean()
    axes.axvspan(-0.25, 0.25, color="0.9", lw=0, label="actions in the data")
    axes.plot(grid, reward, color="black", ls="--", lw=1.6, zorder=3, label="reward r(a)")
    weights = [float(weight) for weight in numbers[method.key]]
    shown = [weight for weight in _SHOWN[method.key] if weight in weights]
    for weight, color in zip(shown, _COLORS):
        curves = aligned[:, weights.index(weight)]
        axes.fill_between(
            grid, curves.min(axis=0), curves.max(axis=0), color=color, alpha=0.2, lw=0
        )
        label = f"${method.symbol}$ = {weight:g}"
        axes.plot(grid, np.median(curves, axis=0), color=color, lw=1.8, label=label)
        axes.plot(
            grid[curves.argmax(axis=1)], curves.max(axis=1), "o",
            color=color, ms=6, mec="white", mew=0.6, zorder=5, clip_on=False,
        )  # fmt: skip
    axes.set_title(f"{method.name}: ${method.formula}$;  dots: peaks of the seeds", fontsize=12)
    axes.set_xlabel("action a")
    axes.set_xlim(-1.0, 1.0)
    axes.set_ylim(-1.2, 1.2)
    axes.grid(True, color="0.93")
    axes.set_axisbelow(True)
    axes.legend(fontsize=9, loc="upper center", bbox_to_anchor=(0.5, -0.14), ncols=3)


def _draw_peaks(axes: Axes, method: _Method, numbers: dict[str, Any]) -> None:
    """Draws |argmax| of every seed and their median against lambda or alpha."""
    weights = [float(weight) for weight in numbers[method.key]]
    peaks = np.abs([entry["argmax"] for entry in numbers[method.key].values()])
    zero = _place_of_zero(numbers)
    places = np.array([weight or zero for weight in weights])
    axes.axhspan(0.23, 0.27, color=curves.GREEN, alpha=0.35, lw=0, label="0.25 ± 0.02")
    held = numbers["robust_range"][method.key]["every_seed"]
    if held is not None:
        axes.axvspan(
            held["from"], held["to"], color=curves.SKY, alpha=0.25, lw=0,
            label="every seed peaks there",
        )  # fmt: skip
    for seed, column in enumerate(peaks.T):
        axes.plot(
            places, column, ".", color=curves.GRAY, ms=5, alpha=0.5,
            label="a seed" if seed == 0 else None,
        )  # fmt: skip
    axes.plot(
        places[-len(weights) + 1 :], np.median(peaks, axis=1)[-len(weights) + 1 :],
        color=curves.BLUE, lw=1.8, label="median of the seeds",
    )  # fmt: skip
    axes.set_xscale("log")
    axes.set_xlim(zero / 2.0, 2.0)
    ticks = [zero, *10.0 ** np.arange(round(np.log10(zero)) + 1, 1)]
    names = ["0", *(f"$10^{{{round(np.log10(tick))}}}$" for tick in ticks[1:])]
    axes.set_xticks(ticks, names)
    axes.set_xlabel(f"${method.symbol}$")
    axes.set_ylim(-0.04, 1.04)
    axes.grid(True, color="0.93")
    axes.set_axisbelow(True)
    if held is not None:
        found = f"every seed peaks at ±0.25 over {held['decades']:.1f} decades of"
    else:
        found = "every seed peaks at ±0.25 for no"
    axes.set_title(f"{method.name}: {found} ${method.symbol}$", fontsize=12)
    axes.legend(fontsize=9, framealpha=0.9, loc="best")


def _place_of_zero(numbers: dict[str, Any]) -> float:
    """Returns where 0 stands on the logarithmic axes: a decade below the smallest weight."""
    weights = [float(weight) for method in _METHODS for weight in numbers[method.key]]
    return min(weight for weight in weights if weight > 0.0) / 10.0
