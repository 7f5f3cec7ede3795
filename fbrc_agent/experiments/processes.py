"""Training runs as child processes, several at a time.

A run's directory is as `bin/train` leaves it, and has `train.log`, what the process printed,
`settings.json`, its gin bindings, and, if its numbers went bad, `failed.json`. What is done is not
run again; what was interrupted goes on.
"""

import dataclasses
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterable, Sequence
from typing import Any, Optional

from fbrc_agent.training import run_directory, run_log
from fbrc_agent.utils import json_files, progress, signals
from fbrc_agent.utils.errors import InputError

_POLL_SECONDS = 0.5
_EXIT_BAD_NUMBERS = 3
_LOG, _SETTINGS, _FAILURE = "train.log", "settings.json", "failed.json"


@dataclasses.dataclass(frozen=True, eq=False)
class Run:
    """A run directory, and how a child process makes it.

    Attributes:
      root_dir: The directory.
      title: What it is called in messages.
      bindings: What makes it the run that it is.
      num_updates: Updates of its stage.
      density: The run whose density it takes; None if it is to fit one, and nothing else.
    """

    root_dir: str
    title: str
    bindings: tuple[str, ...]
    num_updates: int
    density: Optional["Run"] = None

    @property
    def stage(self) -> str:
        """The stage that it is made for."""
        return "behavior" if self.density is None else "fbrc"

    @property
    def log_path(self) -> str:
        """What its process prints."""
        return os.path.join(self.root_dir, _LOG)

    def is_done(self) -> bool:
        """Whether nothing is left to run: it is complete, or its numbers went bad."""
        return self.is_complete() or self.failure() is not None

    def is_complete(self) -> bool:
        """Whether all its updates were made."""
        path = os.path.join(self.root_dir, "result.json")
        result = json_files.read_json(path, [f"stages.{self.stage}.steps"])
        steps = result["stages"][self.stage]["steps"] if result else 0
        # An agent goes on from where it is; a density is fitted with so many updates.
        return steps >= self.num_updates if self.density else steps == self.num_updates

    def failure(self) -> Optional[dict[str, Any]]:
        """Returns the step at which its numbers went bad and the message, or None."""
        path = os.path.join(self.root_dir, _FAILURE)
        failure = json_files.read_json(path, ["step", "message"])
        return failure if failure and failure["step"] <= self.num_updates else None

    def records(self) -> list[dict[str, Any]]:
        """Returns the lines of its metrics that are within its updates."""
        lines = run_log.read_metrics(self.root_dir)
        return [r for r in lines if r["stage"] == self.stage and r["step"] <= self.num_updates]

    def log(self) -> str:
        """Returns what its processes have printed."""
        if not os.path.exists(self.log_path):
            return ""
        with open(self.log_path, encoding="utf-8", errors="replace", newline="") as file:
            return file.read()

    def start(self, num_jobs: int) -> "subprocess.Popen[bytes]":
        """Starts its process, one of so many at a time.

        Raises:
          InputError: If the directory holds a run with other bindings.
        """
        self._claim()
        steps = {"BEHAVIOR_STEPS": self.num_updates, "FBRC_STEPS": 0}
        if self.density is not None:
            steps = {"BEHAVIOR_STEPS": 0, "FBRC_STEPS": self.num_updates}
        lines = [f"{name} = {value}" for name, value in steps.items()]
        lines.append(f"train.log_interval = {max(1, min(1000, self.num_updates // 100))}")
        if self.density is not None:
            directory = os.path.join(self.density.root_dir, "behavior")
            lines.append(f"train.behavior_dir = {directory!r}")
        command = [sys.executable, "-m", "fbrc_agent.cli", "train", "--root_dir", self.root_dir]
        command += ["--gin_file", "fbrc.gin", "--gin_bindings", *lines, *self.bindings]
        environment = dict(os.environ)
        if num_jobs > 1:
            environment.setdefault("TF_NUM_INTRAOP_THREADS", "1")
        with open(self.log_path, "ab") as log:
            return subprocess.Popen(
                command, env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )

    def check_bindings(self) -> None:
        """Checks that the directory holds this run or none.

        Raises:
          InputError: If it holds one with other bindings.
        """
        path = os.path.join(self.root_dir, _SETTINGS)
        found = json_files.read_json(path, ["bindings"])
        if found is None:
            return
        there, wanted = set(found["bindings"]), set(self.bindings)
        if there != wanted:
            raise InputError(
                f"{self.root_dir} holds a run with {sorted(there - wanted)}, not "
                f"{sorted(wanted - there)}; give another root_dir to start anew."
            )

    def _claim(self) -> None:
        os.makedirs(self.root_dir, exist_ok=True)
        path = os.path.join(self.root_dir, _SETTINGS)
        if not os.path.exists(path):
            json_files.write_json(path, {"bindings": list(self.bindings)})

    def settle(self, code: int) -> None:
        """Takes note of how its process ended.

        Raises:
          InputError: If it failed; that the agent's numbers went bad is an outcome.
        """
        if code == 0:
            return
        lines = [line for line in re.split(r"[\r\n]+", self.log()) if line.strip()]
        message = lines[-1] if lines else "it printed nothing"
        step = re.search(r"at step (\d+) of the fbrc stage", message)
        if code != _EXIT_BAD_NUMBERS or step is None:
            raise InputError(
                f"{self.title}: the run ended with exit code {code} ({message.rstrip('.')}); its "
                f"log is {self.log_path}."
            )
        failure = {"step": int(step.group(1)), "message": message}
        json_files.write_json(os.path.join(self.root_dir, _FAILURE), failure)


def run_all(runs: Sequence[Run], num_jobs: int) -> None:
    """Runs what is not done, with a bar over the updates of all.

    Args:
      runs: The runs, in the order in which to start them.
      num_jobs: How many may run at a time.

    Raises:
      InputError: If a run fails, or its directory holds another run; the others were saved.
      interruption.Interruption: If a signal asked for it; the runs were saved.
    """
    for run in runs:
        run.check_bindings()
    waiting = [run for run in runs if not run.is_done()]
    shown = _Progress(runs, waiting)
    active: dict[Run, subprocess.Popen[bytes]] = {}
    with signals.deferred():
        try:
            while (waiting or active) and signals.requested() is None:
                unfinished = [*waiting, *active]
                ready = [run for run in waiting if run.density not in unfinished]
                for run in ready[: num_jobs - len(active)]:
                    active[run] = run.start(num_jobs)
                    waiting.remove(run)
                time.sleep(_POLL_SECONDS)
                shown.show(active)
                ended = [run for run, child in active.items() if child.poll() is not None]
                # Ctrl-C reaches the processes too; that they end is no failure then.
                for run in ended if signals.requested() is None else ():
                    run.settle(active.pop(run).returncode)
                    shown.finish(run)
        finally:
            _stop(list(active.values()))
            shown.close()


def _stop(children: Sequence["subprocess.Popen[bytes]"]) -> None:
    """Asks processes to save and end, and waits for them."""
    for child in children:
        if child.poll() is None:
            child.send_signal(signal.SIGTERM)
    for child in children:
        child.wait()


class _Progress:
    """A bar over the updates of all runs."""

    def __init__(self, runs: Sequence[Run], waiting: Sequence[Run]):
        records = {run: run.records() for run in runs}
        self._steps = {
            run: _last_step(records[run]) if run in waiting else run.num_updates for run in runs
        }
        self._evaluated = {run: _last_step(_evaluations(records[run])) for run in runs}
        self._bar = progress.make_bar(
            total=sum(run.num_updates for run in runs),
            initial=sum(self._steps.values()),
            unit="update",
            smoothing=0.05,  # Runs report now and then, densities are quicker than agents.
            disable=not waiting,
        )

    def show(self, runs: Iterable[Run]) -> None:
        """Shows how far runs have come, and the newest score among them."""
        for run in runs:
            records = run.records()
            self._steps[run] = _last_step(records)
            evaluations, before = _evaluations(records), self._evaluated[run]
            self._evaluated[run] = _last_step(evaluations)
            if self._evaluated[run] > before:
                score = float(evaluations[-1]["normalized_score"])
                self._bar.set_postfix_str(f"{run.title}: score {score:.1f}", refresh=False)
        steps = sum(self._steps.values())
        # A run goes on from its checkpoint, which may be older than its newest record.
        self._bar.initial = min(self._bar.initial, steps)
        self._bar.update(steps - self._bar.n)

    def finish(self, run: Run) -> None:
        """Counts the updates that a run whose numbers went bad will not make."""
        self.show([run])
        self._steps[run] = run.num_updates
        self.show([])

    def close(self) -> None:
        """Leaves the bar as it is."""
        self._bar.close()


def _evaluations(records: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    return [record for record in records if record.get("normalized_score") is not None]


def _last_step(records: Sequence[dict[str, Any]]) -> int:
    return max([record["step"] for record in records], default=0)
