"""Section 5.1, figure 1: what each method maximizes, in a bandit with actions from [-1, 1].

The data are actions uniform in [-0.25, 0.25] with the rewards r(a) = |a| - 0.125. The best actions
among them are a = -0.25 and a = 0.25; a reward network rises beyond, where there are no data.
"""

import dataclasses
import time
from collections.abc import Sequence
from typing import Any, NamedTuple, Optional

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from fbrc_agent.experiments import bandit_landscapes, curves, report
from fbrc_agent.experiments.bandit_landscapes import DATA_BOUND, GRID, Landscapes, Settings
from fbrc_agent.utils import tables

TOLERANCE = 0.02  # A peak is at +-DATA_BOUND if it is this near.
_INSIDE = np.abs(GRID) <= DATA_BOUND + 1e-6
_COLORS = (curves.ORANGE, curves.GREEN, curves.BLUE, curves.PURPLE)


class _Method(NamedTuple):
    key: str
    name: str
    symbol: str
    latex: str
    formula: str
    weights: str  # Its lambdas or alphas in `Settings`.
    drawn: tuple[float, ...]  # Those whose landscapes are drawn.


_BRAC = _Method(
    *("brac", "BRAC", "α", r"\alpha", r"R(a) + \alpha\,\log\mu(a)", "alphas"),
    drawn=(0.0, 0.1, 0.158, 1.0),
)
_FBRC = _Method(
    *("fbrc", "F-BRC", "λ", r"\lambda", r"O(a) + \log\mu(a)", "penalty_weights"),
    drawn=(0.0, 1e-4, 1e-2, 1.0),
)


def run_bandit(root_dir: str, quick: bool) -> report.Report:
    """Maps the landscapes over lambda and alpha; see `measure` for the numbers."""
    del root_dir
    return make_report(bandit_landscapes.QUICK_SETTINGS if quick else Settings())


def make_report(settings: Settings) -> report.Report:
    """Runs the bandit in the given setting."""
    started = time.perf_counter()
    landscapes = bandit_landscapes.train(settings)
    numbers = measure(landscapes, settings)
    numbers["seconds"] = round(time.perf_counter() - started, 1)
    return report.Report(
        name="bandit",
        title="Bandit: what F-BRC and BRAC maximize (section 5.1, figure 1)",
        numbers=numbers,
        figure=draw(landscapes, numbers),
        text=describe(numbers),
    )


def measure(landscapes: Landscapes, settings: Settings) -> dict[str, Any]:
    """Returns the numbers of bandit.json.

    `argmax` is the landscape's highest action on a grid of steps of 0.001, one number per seed.
    `error_inside` is the mean of |landscape - r| over |a| <= 0.25, both less their means there: a
    constant, as log mu brings it in, does not change what is preferred. (It is 0.0625 for a flat
    landscape.) `robust_range` holds the longest run of neighboring lambda (alpha) greater than 0
    that all peak within 0.02 of +-0.25: for every seed, and for the median of |argmax| over seeds.
    """
    numbers: dict[str, Any] = {"settings": dataclasses.asdict(settings)}
    ranges: dict[str, Any] = {}
    for method in (_FBRC, _BRAC):
        landscape, weights = getattr(landscapes, method.key), getattr(settings, method.weights)
        argmax = GRID[landscape.argmax(axis=2)].astype(np.float64)
        error = errors_inside(landscape).astype(np.float64)
        numbers[method.key] = {
            f"{weight:g}": {"argmax": peaks.round(3).tolist(), "error_inside": e.round(5).tolist()}
            for weight, peaks, e in zip(weights, argmax.T, error.T)
        }
        every = is_at_bound(argmax).all(axis=0)
        median = is_at_bound(np.median(np.abs(argmax), axis=0))
        ranges[method.key] = {
            "every_seed": robust_range(weights, every),
            "median_seed": robust_range(weights, median),
        }
    return {**numbers, "robust_range": ranges}


def errors_inside(landscape: np.ndarray) -> np.ndarray:
    """Returns the mean distance of landscapes `[..., G]` from r inside the data, `[...]`."""
    error = landscape[..., _INSIDE] - bandit_landscapes.reward(GRID[_INSIDE])
    return np.abs(error - error.mean(axis=-1, keepdims=True)).mean(axis=-1)


def is_at_bound(peaks: np.ndarray) -> np.ndarray:
    """Returns whether |argmax| is within TOLERANCE of the data's bound."""
    # Both are multiples of the grid's step: half of one decides nothing but rounding.
    return np.abs(np.abs(peaks) - DATA_BOUND) <= TOLERANCE + 0.0005


def robust_range(weights: Sequence[float], holds: np.ndarray) -> Optional[dict[str, float]]:
    """Returns the longest run of weights > 0 for which something holds, or None."""
    best: Optional[dict[str, float]] = None
    first: Optional[float] = None
    for weight, held in zip(weights, holds):
        if not held or weight <= 0.0:
            first = None
            continue
        first = weight if first is None else first
        decades = round(float(np.log10(weight / first)), 2)
        if best is None or decades > best["decades"]:
            best = {"from": first, "to": weight, "decades": decades}
    return best


def describe(numbers: dict[str, Any]) -> str:
    """Returns the results in Markdown."""
    paragraphs = [
        f"A landscape holds if it peaks at ±{DATA_BOUND} within {TOLERANCE}. There are "
        f"{numbers['settings']['seeds']} seeds; the tables have their median, and from the lowest "
        "to the highest.",
    ]
    for method in (_FBRC, _BRAC):
        symbol, ranges = method.symbol, numbers["robust_range"][method.key]
        rows = [[f"{method.name}, {symbol}", "seeds that hold", "peak at ±", "error inside"]]
        for key, entry in numbers[method.key].items():
            # Of BRAC's many, some decades, and all about alpha = 1/8.
            if method is _BRAC and not (
                key in ("0", "0.001", "0.01", "1") or 0.1 <= float(key) <= 0.2
            ):
                continue
            peaks = np.abs(entry["argmax"])
            peak = f"{np.median(peaks):.3f} ({peaks.min():.3f} to {peaks.max():.3f})"
            error = f"{np.median(entry['error_inside']):.4f}"
            rows.append([key, str(is_at_bound(peaks).sum()), peak, error])
        every, median = (
            f"for no {symbol}"
            if found is None
            else f"for {symbol} from {found['from']:g} to {found['to']:g}, "
            f"{found['decades']:g} decades"
            for found in (ranges["every_seed"], ranges["median_seed"])
        )
        paragraphs += [
            f"{method.name}: every seed holds {every}; the median of the seeds holds {median}.",
            tables.table(rows, markdown=True),
        ]
    return "\n\n".join(paragraphs)


def draw(landscapes: Landscapes, numbers: dict[str, Any]) -> Figure:
    """Returns the figure: landscapes above, where they peak below; BRAC left, F-BRC right.

    Args:
      landscapes: What `bandit_landscapes.train` returned.
      numbers: What `measure` returned.
    """
    figure = Figure(figsize=(12.0, 8.6), dpi=curves.DPI, layout="constrained")
    axes = figure.subplots(2, 2, sharey="row")
    for column, method in zip(axes.T, (_BRAC, _FBRC)):
        weights = np.array(numbers["settings"][method.weights])
        _draw_landscapes(column[0], method, getattr(landscapes, method.key), weights)
        _draw_peaks(column[1], method, weights, numbers)
    axes[0, 0].set_ylabel("landscape, shifted to r's mean in the data")
    axes[1, 0].set_ylabel("|a| where the landscape peaks")
    figure.suptitle(
        "Bandit, r(a) = |a| - 0.125, data in [-0.25, 0.25], "
        f"{numbers['settings']['seeds']} seeds: the best action in the data is at ±0.25",
        fontsize=13,
    )
    return figure


def _draw_landscapes(
    axes: Axes, method: _Method, landscape: np.ndarray, weights: np.ndarray
) -> None:
    """Draws the median of the seeds, a band from the lowest to the highest, and each one's peak."""
    reward = bandit_landscapes.reward(GRID)
    aligned = landscape - landscape[..., _INSIDE].mean(axis=-1, keepdims=True)
    aligned += reward[_INSIDE].mean()
    axes.axvspan(-DATA_BOUND, DATA_BOUND, color="0.9", lw=0, label="actions in the data")
    axes.plot(GRID, reward, color="black", ls="--", lw=1.6, zorder=3, label="reward r(a)")
    for weight, color in zip(sorted({*method.drawn} & {*weights}), _COLORS):
        seeds = aligned[:, list(weights).index(weight)]
        axes.fill_between(GRID, seeds.min(0), seeds.max(0), color=color, alpha=0.2, lw=0)
        label = f"${method.latex}$ = {weight:g}"
        axes.plot(GRID, np.median(seeds, axis=0), color=color, lw=1.8, label=label)
        style: dict[str, Any] = {"ms": 6, "mec": "white", "mew": 0.6, "zorder": 5, "clip_on": False}
        axes.plot(GRID[seeds.argmax(1)], seeds.max(1), "o", color=color, **style)
    title = f"{method.name}: ${method.formula}$;  dots: peaks of the seeds"
    _style(axes, title, "action a", (-1.0, 1.0), (-1.2, 1.2))
    axes.legend(fontsize=9, loc="upper center", bbox_to_anchor=(0.5, -0.14), ncols=3)


def _draw_peaks(axes: Axes, method: _Method, weights: np.ndarray, numbers: dict[str, Any]) -> None:
    """Draws |argmax| of every seed and their median against lambda or alpha."""
    peaks = np.abs([entry["argmax"] for entry in numbers[method.key].values()])
    # 0 stands a decade below the smallest weight of both methods.
    known = [w for m in (_BRAC, _FBRC) for w in numbers["settings"][m.weights] if w > 0.0]
    zero = min(known) / 10.0
    places = np.where(weights > 0.0, weights, zero)
    ends = DATA_BOUND - TOLERANCE, DATA_BOUND + TOLERANCE
    axes.axhspan(*ends, color=curves.GREEN, alpha=0.35, lw=0, label=f"{DATA_BOUND} ± {TOLERANCE}")
    held = numbers["robust_range"][method.key]["every_seed"]
    if held is not None:
        label = "every seed peaks there"
        axes.axvspan(held["from"], held["to"], color=curves.SKY, alpha=0.25, lw=0, label=label)
    labels = ["a seed", *[None] * (peaks.shape[1] - 1)]
    axes.plot(places, peaks, ".", color=curves.GRAY, ms=5, alpha=0.5, label=labels)
    medians = np.median(peaks, axis=1)[1:]  # The first weight is 0.
    axes.plot(places[1:], medians, color=curves.BLUE, lw=1.8, label="median of the seeds")
    axes.set_xscale("log")
    exponents = range(round(np.log10(zero)) + 1, 1)
    axes.set_xticks(
        [zero, *(10.0**n for n in exponents)], ["0", *(f"$10^{{{n}}}$" for n in exponents)]
    )
    found = "for no" if held is None else f"over {held['decades']:.1f} decades of"
    title = f"{method.name}: every seed peaks at ±{DATA_BOUND} {found} ${method.latex}$"
    _style(axes, title, f"${method.latex}$", (zero / 2.0, 2.0), (-0.04, 1.04))
    axes.legend(fontsize=9, framealpha=0.9, loc="best")


def _style(
    axes: Axes, title: str, label: str, x: tuple[float, float], y: tuple[float, float]
) -> None:
    axes.set_title(title, fontsize=12)
    axes.set_xlabel(label)
    axes.set_xlim(x)
    axes.set_ylim(y)
    axes.grid(True, color="0.93")
    axes.set_axisbelow(True)
