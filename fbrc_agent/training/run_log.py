"""What a run writes while it goes on: metrics.jsonl, TensorBoard summaries, the progress bar."""

import json
import math
import os
import sys
import time
from typing import Any, Optional

import tensorflow as tf

from fbrc_agent.training import run_directory
from fbrc_agent.utils import atomic_files, progress

STAGES = ("behavior", "fbrc")


def read_metrics(root_dir: str) -> list[dict[str, Any]]:
    """Returns the lines of root_dir/metrics.jsonl that hold numbers."""
    return [record for record in run_directory.read_metrics(root_dir) if "event" not in record]


def read_events(root_dir: str) -> list[dict[str, Any]]:
    """Returns the lines of root_dir/metrics.jsonl that are events."""
    return [record for record in run_directory.read_metrics(root_dir) if "event" in record]


class StageLog:
    """Log of one stage of a run; an interrupted stage goes on where its checkpoint stands.

    Lines of `metrics.jsonl` are `{"stage", "step", "seconds", scalars...}`; `seconds` counts the
    training of the stage, over all its starts, without evaluation and logging.
    """

    def __init__(self, root_dir: str, stage: str, step: int, num_steps: int):
        """Opens the log at a step; lines that a killed run wrote beyond it are dropped.

        Args:
          root_dir: Directory of the run.
          stage: One of `STAGES`.
          step: Step of the checkpoint that the stage goes on from.
          num_steps: Step at which the stage ends.
        """
        self.stage = stage
        self._path = os.path.join(root_dir, "metrics.jsonl")
        records = [r for r in run_directory.read_metrics(root_dir) if self._is_before(r, step)]
        atomic_files.write_text(self._path, "".join(_line(record) for record in records))
        self.records = [r for r in records if r["stage"] == stage]
        self._step = step
        self._seconds = self.records[-1]["seconds"] if self.records else 0.0
        self._started: Optional[float] = None
        self._writer = tf.summary.create_file_writer(os.path.join(root_dir, "eval", stage))
        self._bar = progress.make_bar(
            total=num_steps, initial=step, desc=f"{stage:8s}", unit="update"
        )

    def _is_before(self, record: dict[str, Any], step: int) -> bool:
        order = STAGES.index(record["stage"]) - STAGES.index(self.stage)
        return order < 0 or (order == 0 and record["step"] <= step)

    @property
    def seconds(self) -> float:
        """Seconds of training so far."""
        running = 0.0 if self._started is None else time.monotonic() - self._started
        return self._seconds + running

    def start_clock(self) -> None:
        """Training begins, or goes on."""
        self._started = time.monotonic()

    def stop_clock(self) -> None:
        """Training pauses."""
        self._seconds, self._started = self.seconds, None

    def advance(self, step: int) -> None:
        """Moves the bar to a step."""
        self._bar.update(step - self._step)
        self._step = step

    def write(self, step: int, scalars: dict[str, Any], score: Optional[str] = None) -> None:
        """Appends a line, writes its numbers as summaries, and shows a score in the bar.

        Args:
          step: Updates made in this stage.
          scalars: Numbers, or lists of them (kept in the line only); None for what is not known.
          score: Text for the bar, if the line holds an evaluation.
        """
        record = {"stage": self.stage, "step": step, "seconds": round(self.seconds, 3), **scalars}
        record = {k: _finite_or_text(v) for k, v in record.items()}
        self.records.append(record)
        with open(self._path, "a", encoding="utf-8") as file:
            file.write(_line(record))
        with self._writer.as_default():
            for name, value in scalars.items():
                if isinstance(value, float):
                    tf.summary.scalar(name, value, step=step)
        if score is not None:
            self._bar.set_postfix_str(score)

    def warn(self, text: str) -> None:
        """Writes a warning to the terminal, above the bar."""
        self._bar.write(f"warning: {text}", file=sys.stderr)

    def close(self) -> None:
        """Closes the bar and the summaries."""
        self._bar.close()
        self._writer.close()


def _line(record: dict[str, Any]) -> str:
    return json.dumps(record, allow_nan=False) + "\n"


def _finite_or_text(value: Any) -> Any:
    """JSON has no inf and nan; they are written as the texts 'inf', '-inf' and 'nan'."""
    if isinstance(value, list):
        return [_finite_or_text(v) for v in value]
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value
