"""What a run writes while it trains: metrics.jsonl, TensorBoard summaries, the progress bar.

Lines of metrics.jsonl are JSON objects. `{"stage", "step", "seconds", numbers...}` has numbers, and
`{"stage", "step", "seconds", "event", details...}` is an event:

    resumed               the stage resumed from the checkpoint of this step
    checkpoint_damaged    "checkpoint", its step, "file" and "problem"; another one was used
    diverged              "q", a mean of |Q|, is beyond "bound", the largest return there can be
    not_finite            "tensor" is "value"; the run ended
    interrupted           "signal" ended the run, after a checkpoint
    untrusted             the policy: "value" is beyond "bound", for a "reason" of `trust.Trust`
"""

import json
import math
import os
import sys
import time
from collections.abc import Mapping, Sequence
from typing import Any, Optional

import tensorflow as tf

from fbrc_agent.utils import atomic_files, progress
from fbrc_agent.utils.errors import InputError

_FILE = "metrics.jsonl"


def read_metrics(root_dir: str, stage: Optional[str] = None) -> list[dict[str, Any]]:
    """Returns the lines of root_dir/metrics.jsonl that hold numbers, of one stage or of all.

    Raises:
      InputError: If there is a line that no run writes. A last line cut by a kill is left out.
    """
    records = [record for record in _read(root_dir) if "event" not in record]
    return [record for record in records if stage in (None, record["stage"])]


def read_events(root_dir: str, stage: Optional[str] = None) -> list[dict[str, Any]]:
    """Returns the events of root_dir/metrics.jsonl; arguments and errors as of `read_metrics`."""
    records = [record for record in _read(root_dir) if "event" in record]
    return [record for record in records if stage in (None, record["stage"])]


def scores(records: Sequence[Mapping[str, Any]], step: int) -> Optional[Mapping[str, Any]]:
    """Returns the evaluation of a step among a stage's records; None if there is none."""
    return next((r for r in reversed(records) if r["step"] == step and "returns" in r), None)


def doubts(events: Sequence[Mapping[str, Any]], step: int) -> list[dict[str, Any]]:
    """Returns `reason`, `value` and `bound` of each event of a step that says not to trust it."""
    untrusted = [e for e in events if e["event"] == "untrusted" and e["step"] == step]
    return [{name: e[name] for name in ("reason", "value", "bound")} for e in untrusted]


class StageLog:
    """Log of one stage of a run; a stage that resumes continues the log of before.

    `seconds` counts the training of the stage, over all its starts, without evaluation and logging.

    Attributes:
      stage: Name of the stage.
      records: The lines of this stage that hold numbers.
      events: Those that hold events.
    """

    def __init__(self, root_dir: str, stages: Sequence[str], stage: str, step: int, num_steps: int):
        """Opens the log at a step; lines that a killed run wrote beyond it are dropped.

        Args:
          root_dir: Directory of the run.
          stages: Names of the stages of the run, in their order.
          stage: Name of this stage.
          step: Step of the checkpoint that the stage resumes from; 0 if there is none.
          num_steps: Step at which the stage ends.
        """
        self.stage = stage
        self._path = os.path.join(root_dir, _FILE)
        earlier = stages[: stages.index(stage)]
        records = [
            record
            for record in _read(root_dir)
            if record["stage"] in earlier or (record["stage"] == stage and record["step"] <= step)
        ]
        atomic_files.write_text(self._path, "".join(_line(record) for record in records))
        own = [record for record in records if record["stage"] == stage]
        self.records = [record for record in own if "event" not in record]
        self.events = [record for record in own if "event" in record]
        self._step = step
        self._seconds = own[-1]["seconds"] if own else 0.0
        self._started: Optional[float] = None
        self._writer = tf.summary.create_file_writer(os.path.join(root_dir, stage, "eval"))
        width = max(map(len, stages))
        self._bar = progress.make_bar(
            total=num_steps, initial=step, desc=stage.ljust(width), unit="update"
        )

    @property
    def seconds(self) -> float:
        """Seconds of training so far."""
        running = 0.0 if self._started is None else time.monotonic() - self._started
        return self._seconds + running

    def start_clock(self) -> None:
        """Training begins or continues."""
        self._started = time.monotonic()

    def stop_clock(self) -> None:
        """Training pauses."""
        self._seconds, self._started = self.seconds, None

    def advance(self, step: int) -> None:
        """Moves the bar to a step."""
        self._bar.update(step - self._step)
        self._step = step

    def write(self, step: int, scalars: Mapping[str, Any], score: Optional[str] = None) -> None:
        """Appends a line, writes its numbers as summaries, and shows a score in the bar.

        Args:
          step: Updates made in this stage.
          scalars: Numbers, or lists of them (kept in the line only); None for what is not known.
          score: Text for the bar, if the line holds an evaluation.
        """
        self.records.append(self._append(step, scalars))
        with self._writer.as_default():
            for name, value in scalars.items():
                if isinstance(value, float):
                    tf.summary.scalar(name, value, step=step)
        if score is not None:
            self._bar.set_postfix_str(score)

    def write_event(self, step: int, event: str, **details: Any) -> None:
        """Appends an event, one of those at the top of this module, with its details."""
        self.events.append(self._append(step, {"event": event, **details}))

    def warn(self, text: str) -> None:
        """Writes a warning to the terminal, above the bar."""
        self._bar.write(f"warning: {text}", file=sys.stderr)

    def close(self) -> None:
        """Closes the bar and the summaries."""
        self._bar.close()
        self._writer.close()

    def _append(self, step: int, entries: Mapping[str, Any]) -> dict[str, Any]:
        record = {"stage": self.stage, "step": step, "seconds": round(self.seconds, 3), **entries}
        record = {k: _finite_or_text(v) for k, v in record.items()}
        with atomic_files.named(self._path), open(self._path, "a", encoding="utf-8") as file:
            file.write(_line(record))
        return record


def _read(root_dir: str) -> list[dict[str, Any]]:
    path = os.path.join(root_dir, _FILE)
    if not os.path.exists(path):
        return []
    records: list[dict[str, Any]] = []
    with open(path, "rb") as file:
        for number, line in enumerate(file, 1):
            try:
                record = json.loads(line)
            except ValueError:
                if not line.endswith(b"\n"):
                    break
                record = None
            if not _is_record(record):
                raise InputError(
                    f"{path}: line {number} is not one that a run writes; remove this line."
                )
            records.append(record)
    return records


def _is_record(record: Any) -> bool:
    if not isinstance(record, dict):
        return False
    texts = [v for k, v in record.items() if k != "stage" and isinstance(v, str)]
    return (
        isinstance(record.get("stage"), str)
        and isinstance(record.get("step"), int)
        and ("event" in record or all(text in ("nan", "inf", "-inf") for text in texts))
    )


def _line(record: Mapping[str, Any]) -> str:
    return json.dumps(record, allow_nan=False) + "\n"


def _finite_or_text(value: Any) -> Any:
    """JSON has no inf and nan; they are written as the texts 'inf', '-inf' and 'nan'."""
    if isinstance(value, list):
        return [_finite_or_text(v) for v in value]
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value
