"""Curves of runs: reading them, and drawing the seeds of a setting on a panel over updates."""

import dataclasses
from collections.abc import Sequence
from typing import Any, Optional

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

from fbrc_agent.training import run_directory, run_log
from fbrc_agent.utils import atomic_files, json_files

DPI = 100
# Okabe and Ito's colors, which readers who do not see red and green can distinguish.
BLUE, ORANGE, GREEN, GRAY = "#0072B2", "#D55E00", "#009E73", "#555555"
PURPLE, SKY, YELLOW = "#CC79A7", "#56B4E9", "#E69F00"


@dataclasses.dataclass(frozen=True)
class LoggedRun:
    """What is on disk of one run.

    Attributes:
      root_dir: Its directory.
      identity: The content of run.json.
      records: The lines of metrics.jsonl that hold numbers.
    """

    root_dir: str
    identity: dict[str, Any]
    records: list[dict[str, Any]]

    @property
    def algorithm(self) -> str:
        """The name of its algorithm, that of its last stage."""
        return self.identity["algorithm"]

    @property
    def pretraining(self) -> list[dict[str, Any]]:
        """The descriptions of the stages before the last one."""
        return self.identity["stages"][:-1]

    @property
    def label(self) -> str:
        """What tables and legends call its algorithm."""
        return self.identity["stages"][-1]["label"]

    def curve(self, stage: str, name: str) -> tuple[np.ndarray, np.ndarray]:
        """Returns the steps [n] and values [n] of a number; inf and nan become gaps."""
        points = [
            (record["step"], float(record[name]))
            for record in self.records
            if record["stage"] == stage and record.get(name) is not None
        ]
        steps, values = np.array(points, np.float64).reshape(-1, 2).T
        return steps, np.where(np.isfinite(values), values, np.nan)

    def last(self, stage: str, name: str) -> Optional[float]:
        """Returns the last finite value of a number; None if there is none."""
        return last(self.curve(stage, name)[1])

    def final_return(self, stage: str) -> Optional[float]:
        """Returns the last mean return of a stage, from the result where another run trained it."""
        value = self.last(stage, "return_mean")
        if value is None:
            result = json_files.read_json(f"{self.root_dir}/result.json", ["stages"]) or {}
            value = result.get("stages", {}).get(stage, {}).get("return_mean")
        return None if value is None else float(value)


def read(root_dir: str) -> LoggedRun:
    """Reads a run.

    Raises:
      InputError: If there is none, or a file of it is damaged.
    """
    identity = run_directory.read_identity(root_dir)
    return LoggedRun(root_dir, identity, run_log.read_metrics(root_dir))


def last(values: np.ndarray) -> Optional[float]:
    """Returns the last finite value, or None."""
    return mean_of_last(values, 1)


def mean_of_last(values: np.ndarray, count: int) -> Optional[float]:
    """Returns the mean of the last finite values, so many at most; None if there is none."""
    known = values[np.isfinite(values)]
    return float(known[-count:].mean()) if len(known) else None


def common_steps(runs: Sequence[LoggedRun], stage: str, name: str) -> tuple[np.ndarray, np.ndarray]:
    """Returns the steps [n] that all runs have, and their values [runs, n]."""
    curves = [dict(zip(*run.curve(stage, name))) for run in runs]
    steps = sorted(set.intersection(*(set(curve) for curve in curves)))
    values = [[curve[step] for step in steps] for curve in curves]
    return np.array(steps), np.array(values).reshape(len(runs), len(steps))


def draw_seeds(
    axes: Axes,
    runs: Sequence[LoggedRun],
    stage: str,
    name: str,
    color: str,
    label: Optional[str] = None,
    style: str = "-",
    marker: str = "",
    band: Optional[str] = "",
) -> None:
    """Draws a number of runs: seeds as thin lines, their band, and the mean as a thick line.

    Means end where the shortest run ends. A single run is one line.

    Args:
      axes: Where to draw.
      runs: Seeds of one setting.
      stage: Stage of the number.
      name: Name of the number in metrics.jsonl.
      color: Color of all lines.
      label: Entry in the legend.
      style: Line style.
      marker: Marker of the mean, or of a single run.
      band: Entry in the legend of the band from the lowest to the highest seed, '' for a band
        without one; None for no band.
    """
    several = len(runs) > 1
    for run in runs if several else ():
        axes.plot(*run.curve(stage, name), color=color, ls=style, lw=0.7, alpha=0.5)
    steps, values = common_steps(runs, stage, name)
    if several and len(steps) and band is not None:
        ends = values.min(axis=0), values.max(axis=0)
        axes.fill_between(steps, *ends, color=color, alpha=0.15, lw=0, label=band or None)
    dots = marker or ("." if len(steps) == 1 else "")  # A line of one point is not visible.
    mean = values.mean(axis=0) if len(steps) else np.zeros(0)
    width = 2.0 if several else 1.6
    axes.plot(steps, mean, color=color, ls=style, lw=width, marker=dots, ms=3.5, label=label)


def draw_level(axes: Axes, level: Optional[float], color: str, style: str, label: str = "") -> None:
    """Draws a horizontal line, if its height is known."""
    if level is not None:
        axes.axhline(level, color=color, ls=style, lw=1.4, label=label or None)


def style_panel(axes: Axes, title: str, unit: str) -> Axes:
    """Gives a panel over updates its title, labels and grid; returns it."""
    axes.set_title(title, fontsize=11)
    axes.set_xlabel("updates")
    axes.set_ylabel(unit)
    axes.xaxis.set_major_locator(MaxNLocator(5, steps=[1, 2, 5, 10], integer=True))
    axes.xaxis.set_major_formatter(FuncFormatter(_thousands))
    axes.grid(True, color="0.9")
    axes.set_axisbelow(True)
    return axes


def _thousands(value: float, _: Optional[int] = None) -> str:
    for unit, letter in ((1e6, "M"), (1e3, "k")):
        if abs(value) >= unit:
            return f"{value / unit:g}{letter}"
    return f"{value:g}"


def write_png(path: str, figure: Figure) -> None:
    """Draws a figure into a PNG; pyplot, its backends and a display are not needed."""
    with atomic_files.replacing(path) as temporary, open(temporary, "wb") as file:
        FigureCanvasAgg(figure).print_png(file)
