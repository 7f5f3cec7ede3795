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
from fbrc_agent.utils import atomic_files

DPI = 100
# Okabe and Ito's colors, which readers who do not see red and green can distinguish.
BLUE, ORANGE, GREEN, GRAY = "#0072B2", "#D55E00", "#009E73", "#555555"
PURPLE, SKY, YELLOW = "#CC79A7", "#56B4E9", "#E69F00"
COLORS = (BLUE, ORANGE, GREEN, PURPLE, SKY, YELLOW)


@dataclasses.dataclass(frozen=True)
class LoggedRun:
    """What is on disk of one run.

    Attributes:
      root_dir: Its directory.
      identity: The content of run.json.
      records: The lines of metrics.jsonl that hold numbers.
      events: Its other lines.
    """

    root_dir: str
    identity: dict[str, Any]
    records: list[dict[str, Any]]
    events: list[dict[str, Any]]

    @property
    def algorithm(self) -> str:
        """The name of its algorithm, that of its last stage."""
        return self.identity["algorithm"]

    @property
    def label(self) -> str:
        """What tables and legends call its algorithm."""
        return self.identity["stages"][-1]["label"]

    @property
    def last_step(self) -> int:
        """The last step of its algorithm that has numbers; 0 if there is none."""
        return max((r["step"] for r in self.records if r["stage"] == self.algorithm), default=0)

    def curve(self, name: str, stage: Optional[str] = None) -> tuple[np.ndarray, np.ndarray]:
        """Returns the steps [n] and values [n] of a number; infinity and NaN become gaps.

        It is one of the algorithm's stage, unless another stage is named.
        """
        points = [
            (record["step"], float(record[name]))
            for record in self.records
            if record["stage"] == (stage or self.algorithm) and record.get(name) is not None
        ]
        steps, values = np.array(points, np.float64).reshape(-1, 2).T
        return steps, np.where(np.isfinite(values), values, np.nan)

    def mean_of_last(
        self, name: str, count: int = 1, stage: Optional[str] = None
    ) -> Optional[float]:
        """Returns the mean of the last finite values of a number, so many at most, or None."""
        values = self.curve(name, stage)[1]
        known = values[np.isfinite(values)]
        return float(known[-count:].mean()) if len(known) else None

    def event_step(self, name: str) -> Optional[int]:
        """Returns the step of its algorithm's first event of this name, or None."""
        own = [event for event in self.events if event["stage"] == self.algorithm]
        return min((event["step"] for event in own if event["event"] == name), default=None)


def read(root_dir: str, last_step: Optional[int] = None) -> LoggedRun:
    """Reads a run, up to a step of its algorithm if one is given.

    Raises:
      InputError: If there is none, or a file of it is damaged.
    """
    identity = run_directory.read_identity(root_dir)
    records, events = run_log.read_metrics(root_dir), run_log.read_events(root_dir)
    if last_step is not None:
        stage = identity["algorithm"]
        records, events = (
            [line for line in lines if line["stage"] != stage or line["step"] <= last_step]
            for lines in (records, events)
        )
    return LoggedRun(root_dir, identity, records, events)


def draw_seeds(
    axes: Axes,
    runs: Sequence[LoggedRun],
    name: str,
    color: str,
    label: Optional[str] = None,
    stage: Optional[str] = None,
    style: str = "-",
    marker: str = "",
    band: Optional[str] = None,
) -> None:
    """Draws a number of runs: seeds as thin lines, their band, and the mean as a thick line.

    The band goes from the lowest to the highest seed. Means end where the shortest run ends. A
    single run is one line.

    Args:
      axes: Where to draw.
      runs: Seeds of one setting.
      name: Name of the number in metrics.jsonl.
      color: Color of all lines.
      label: Entry in the legend.
      stage: Stage of the number; the last one by default.
      style: Line style.
      marker: Marker of the mean, or of a single run.
      band: Entry in the legend of the band.
    """
    curves = [run.curve(name, stage) for run in runs]
    points = [dict(zip(*curve)) for curve in curves]
    steps = sorted(set.intersection(*map(set, points)))
    values = np.array([[curve[step] for step in steps] for curve in points])
    if len(runs) > 1:
        for curve in curves:
            axes.plot(*curve, color=color, ls=style, lw=0.7, alpha=0.5)
        if steps:
            ends = values.min(axis=0), values.max(axis=0)
            axes.fill_between(steps, *ends, color=color, alpha=0.15, lw=0, label=band)
    dots = marker or ("." if len(steps) == 1 else "")  # A line of one point is not visible.
    width = 2.0 if len(runs) > 1 else 1.6
    mean = values.mean(axis=0)
    axes.plot(steps, mean, color=color, ls=style, lw=width, marker=dots, ms=3.5, label=label)


def style_panel(axes: Axes, title: str, unit: str, log_scale: bool = False) -> None:
    """Gives a panel over updates its title, labels, scale and grid."""
    axes.set_yscale("log" if log_scale else "linear")
    axes.set_title(title, fontsize=11)
    axes.set_xlabel("updates")
    axes.set_ylabel(unit)
    axes.xaxis.set_major_locator(MaxNLocator(5, steps=[1, 2, 5, 10], integer=True))
    axes.xaxis.set_major_formatter(FuncFormatter(_thousands))
    axes.grid(True, color="0.9")
    axes.set_axisbelow(True)


def _thousands(value: float, _: Optional[int] = None) -> str:
    for unit, letter in ((1e6, "M"), (1e3, "k")):
        if abs(value) >= unit:
            return f"{value / unit:g}{letter}"
    return f"{value:g}"


def write_png(path: str, figure: Figure) -> None:
    """Draws a figure into a PNG; pyplot, its backends and a display are not needed."""
    with atomic_files.replacing(path) as temporary, open(temporary, "wb") as file:
        FigureCanvasAgg(figure).print_png(file)
