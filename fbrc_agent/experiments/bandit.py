"""Section 5.1, figure 1: what each method maximizes, in a bandit with actions from [-1, 1].

The data are actions uniform in [-0.25, 0.25] with the rewards r(a) = |a| - 0.125. The best actions
among them are a = -0.25 and a = 0.25; a reward network rises beyond, where there are no data.
"""

import dataclasses
import time
from collections.abc import Sequence
from typing import Any, Optional

import numpy as np

from fbrc_agent.experiments import bandit_figure, bandit_landscapes
from fbrc_agent.experiments import report as reports
from fbrc_agent.experiments.bandit_landscapes import DATA_BOUND, GRID, Landscapes, Settings
from fbrc_agent.utils import tables

TOLERANCE = 0.02  # A peak is at +-DATA_BOUND if it is this near.
_INSIDE = np.abs(GRID) <= DATA_BOUND + 1e-6


def run_bandit(root_dir: str, quick: bool) -> reports.Report:
    """Maps the landscapes over lambda and alpha; see `measure` for the numbers."""
    del root_dir
    settings = bandit_landscapes.QUICK_SETTINGS if quick else Settings()
    return make_report(settings, reports.command("bandit", quick))


def make_report(settings: Settings, command: str) -> reports.Report:
    """Runs the bandit in the given setting."""
    started = time.perf_counter()
    landscapes = bandit_landscapes.train(settings)
    numbers = measure(landscapes, settings)
    numbers["seconds"] = round(time.perf_counter() - started, 1)
    return reports.Report(
        name="bandit",
        title="Bandit: what F-BRC and BRAC maximize (section 5.1, figure 1)",
        command=command,
        numbers=numbers,
        figure=bandit_figure.draw(landscapes, GRID, numbers),
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
    weights = {"fbrc": settings.penalty_weights, "brac": settings.alphas}
    peaks = {}
    for method, landscape in zip(weights, landscapes):
        argmax = GRID[landscape.argmax(axis=2)].astype(np.float64)
        peaks[method] = np.abs(argmax)
        error = errors_inside(landscape)
        numbers[method] = {
            f"{weight:g}": {
                "argmax": argmax[:, i].round(3).tolist(),
                "error_inside": error[:, i].astype(np.float64).round(5).tolist(),
            }
            for i, weight in enumerate(weights[method])
        }
    numbers["robust_range"] = {
        method: {
            "every_seed": robust_range(weights[method], is_at_bound(peaks[method]).all(axis=0)),
            "median_seed": robust_range(
                weights[method], is_at_bound(np.median(peaks[method], axis=0))
            ),
        }
        for method in weights
    }
    return numbers


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
    for method, name, symbol in (("fbrc", "F-BRC", "λ"), ("brac", "BRAC", "α")):
        rows = [[f"{name}, {symbol}", "seeds that hold", "peak at ±", "error inside"]]
        for key, entry in numbers[method].items():
            if method == "brac" and not _is_shown(float(key)):
                continue
            peaks = np.abs(entry["argmax"])
            peak = f"{np.median(peaks):.3f} ({peaks.min():.3f} to {peaks.max():.3f})"
            error = f"{np.median(entry['error_inside']):.4f}"
            rows.append([key, str(is_at_bound(peaks).sum()), peak, error])
        every, median = (
            _range_text(numbers["robust_range"][method][kind], symbol)
            for kind in ("every_seed", "median_seed")
        )
        paragraphs += [
            f"{name}: every seed holds {every}; the median of the seeds holds {median}.",
            tables.table(rows, markdown=True),
        ]
    return "\n\n".join(paragraphs)


def _is_shown(alpha: float) -> bool:
    """Returns whether BRAC's table has this row: some decades, and all about alpha = 1/8."""
    return alpha in (0.0, 0.001, 0.01, 1.0) or 0.1 <= alpha <= 0.2


def _range_text(found: Optional[dict[str, float]], symbol: str) -> str:
    if found is None:
        return f"for no {symbol}"
    ends = f"for {symbol} from {found['from']:g} to {found['to']:g}"
    return f"{ends}, {found['decades']:g} decades"
