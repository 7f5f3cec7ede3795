"""What is on disk of a run, as curves over its updates."""

import dataclasses
from typing import Any, Optional

import numpy as np

from fbrc_agent.training import run_directory, run_log


@dataclasses.dataclass(frozen=True)
class LoggedRun:
    """What is on disk of one run.

    Attributes:
      root_dir: Its directory.
      identity: The content of run.json.
      lines: Those of metrics.jsonl.
    """

    root_dir: str
    identity: dict[str, Any]
    lines: list[dict[str, Any]]

    @property
    def label(self) -> str:
        """What tables and legends call its algorithm."""
        return self.identity["stages"][-1]["label"]

    @property
    def last_step(self) -> int:
        """The last step of its algorithm that has a line; 0 if there is none."""
        return max((line["step"] for line in self._of_stage()), default=0)

    def _of_stage(self, stage: Optional[str] = None) -> list[dict[str, Any]]:
        """Returns the lines of a stage; by default its algorithm's, the last one."""
        stage = stage or self.identity["algorithm"]
        return [line for line in self.lines if line["stage"] == stage]

    def curve(self, name: str, stage: Optional[str] = None) -> tuple[np.ndarray, np.ndarray]:
        """Returns the steps [n] and values [n] of a number; infinity and NaN become gaps.

        It is one of the algorithm's stage, unless another stage is named.
        """
        lines = [line for line in self._of_stage(stage) if line.get(name) is not None]
        steps = np.array([line["step"] for line in lines], np.float64)
        values = np.array([float(line[name]) for line in lines], np.float64)
        return steps, np.where(np.isfinite(values), values, np.nan)

    def mean_of_last(
        self, name: str, count: int = 1, stage: Optional[str] = None
    ) -> Optional[float]:
        """Returns the mean of the last finite values of a number, so many at most, or None."""
        values = self.curve(name, stage)[1]
        known = values[np.isfinite(values)]
        return float(known[-count:].mean()) if len(known) else None

    def largest(self, name: str) -> Optional[float]:
        """Returns the largest finite value of a number, or None."""
        values = self.curve(name)[1]
        return max(values[np.isfinite(values)].tolist(), default=None)

    def event_step(self, name: str) -> Optional[int]:
        """Returns the step of its algorithm's first event of this name, or None."""
        lines = self._of_stage()
        return min((line["step"] for line in lines if line.get("event") == name), default=None)


def read(root_dir: str, last_step: Optional[int] = None) -> LoggedRun:
    """Reads a run, up to a step of its algorithm if one is given.

    Raises:
      InputError: If there is none, or a file of it is damaged.
    """
    identity = run_directory.read_identity(root_dir)
    lines = [*run_log.read_metrics(root_dir), *run_log.read_events(root_dir)]
    if last_step is not None:
        stage = identity["algorithm"]
        lines = [line for line in lines if line["stage"] != stage or line["step"] <= last_step]
    return LoggedRun(root_dir, identity, lines)
