"""Training runs as child processes, several at a time.

A run's directory is as `bin/train` leaves it, with `train.log`, what the process printed, beside.
What is done is not run again; what was interrupted resumes from its checkpoint.
"""

import dataclasses
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Optional

from fbrc_agent.experiments import configuration
from fbrc_agent.training import run_log
from fbrc_agent.utils import json_files, progress, signals
from fbrc_agent.utils.errors import InputError

_POLL_SECONDS = 0.5
_EXIT_NOT_FINITE = 3


@dataclasses.dataclass(frozen=True, eq=False)
class Run:
    """A run directory, and how a child process makes it.

    Attributes:
      root_dir: The directory.
      title: What it is called in messages.
      gin_file: Its gin file.
      bindings: gin bindings after the file, which make it the run that it is.
      num_updates: Updates of its algorithm.
      pretrained: The runs whose trained networks it takes, by the names of their algorithms.
    """

    root_dir: str
    title: str
    gin_file: str
    bindings: tuple[str, ...]
    num_updates: int
    pretrained: Mapping[str, "Run"] = dataclasses.field(default_factory=dict)

    @property
    def log_path(self) -> str:
        """What its process prints."""
        return os.path.join(self.root_dir, "train.log")

    def is_done(self) -> bool:
        """Whether nothing is left to run: it is complete, or met NaN or infinity."""
        return self.is_complete() or self.event_step("not_finite") is not None

    def is_complete(self) -> bool:
        """Whether all its updates were made."""
        return self.completed_updates() >= self.num_updates

    def completed_updates(self) -> int:
        """Returns the updates with which it was completed last; 0 if it never was."""
        path = os.path.join(self.root_dir, "result.json")
        result = json_files.read_json(path, ["algorithm", "stages"])
        return result["stages"][result["algorithm"]]["steps"] if result else 0

    def event_step(self, name: str) -> Optional[int]:
        """Returns the step of the first event of this name, or None."""
        steps = [e["step"] for e in self._own(run_log.read_events) if e["event"] == name]
        return min(steps, default=None)

    def records(self) -> list[dict[str, Any]]:
        """Returns the numbers that its algorithm logged within its updates."""
        return self._own(run_log.read_metrics)

    def _own(self, read: Any) -> list[dict[str, Any]]:
        identity = json_files.read_json(os.path.join(self.root_dir, "run.json"), ["algorithm"])
        if identity is None:
            return []
        stage, last = identity["algorithm"], self.num_updates
        return [r for r in read(self.root_dir) if r["stage"] == stage and r["step"] <= last]

    def start(self, num_jobs: int) -> "subprocess.Popen[bytes]":
        """Starts its process, one of so many at a time."""
        os.makedirs(self.root_dir, exist_ok=True)
        command = [sys.executable, "-m", "fbrc_agent.cli", "train", "--root_dir", self.root_dir]
        command += ["--gin_file", self.gin_file, "--gin_bindings", *self._all_bindings()]
        environment = dict(os.environ)
        if num_jobs > 1:
            environment.setdefault("TF_NUM_INTRAOP_THREADS", "1")
        with open(self.log_path, "ab") as log:
            return subprocess.Popen(
                command, env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )

    def _all_bindings(self) -> list[str]:
        directories = {
            name: os.path.join(run.root_dir, name) for name, run in self.pretrained.items()
        }
        return [
            f"STEPS = {self.num_updates}",
            f"train.log_interval = {max(1, min(1000, self.num_updates // 100))}",
            *([f"train.pretrained = {directories!r}"] if directories else []),
            *self.bindings,
        ]

    def check_settings(self) -> None:
        """Checks that the directory holds this run or none, by its operative_config.gin.

        Raises:
          InputError: If it holds one with other settings.
        """
        path = os.path.join(self.root_dir, "operative_config.gin")
        if not os.path.exists(path):
            return
        with open(path, encoding="utf-8") as file:
            used = configuration.settings(file.read())
        wanted_config = configuration.of_run(self.gin_file, self._all_bindings())
        for name, wanted in configuration.settings(wanted_config).items():
            if used.get(name, wanted) != wanted:
                raise InputError(
                    f"{self.root_dir} holds a run with {name} = {used[name]}, not {wanted}; give "
                    "another root_dir to start a new one."
                )

    def check_ending(self, code: int, is_shared: bool) -> None:
        """Checks how its process ended; `is_shared` says whether other runs need its network.

        Raises:
          InputError: If it failed. NaN or infinity is an outcome of a run that no other one needs.
        """
        if code == 0 or (code == _EXIT_NOT_FINITE and self.is_done() and not is_shared):
            return
        with open(self.log_path, encoding="utf-8", errors="replace") as file:
            lines = [line for line in file.read().splitlines() if line.strip()]
        message = lines[-1].rstrip(".") if lines else "it printed nothing"
        raise InputError(
            f"{self.title}: the run ended with exit code {code} ({message}); its log is "
            f"{self.log_path}."
        )


def run_all(runs: Sequence[Run], num_jobs: int) -> None:
    """Runs what is not done, with a bar over the updates of all.

    Args:
      runs: The runs, those of pretrained networks before those that take them.
      num_jobs: How many may run at a time.

    Raises:
      InputError: If a run fails, or its directory holds another run; the others were saved.
      signals.Interruption: If a signal asked for it; the runs were saved.
    """
    shared = {pretrained for run in runs for pretrained in run.pretrained.values()}
    for run in runs:
        run.check_settings()
        steps = run.completed_updates()
        if run in shared and steps not in (0, run.num_updates):
            # Other runs may have taken its network as it is.
            raise InputError(
                f"{run.root_dir} holds a run of {steps} updates, not {run.num_updates}; give "
                "another root_dir to start a new one."
            )
    waiting = [run for run in runs if not (run.is_complete() if run in shared else run.is_done())]
    shown = _Progress(runs, waiting)
    active: dict[Run, subprocess.Popen[bytes]] = {}
    with signals.deferred():
        try:
            while (waiting or active) and signals.requested() is None:
                unfinished = [*waiting, *active]
                ready = [r for r in waiting if not set(r.pretrained.values()) & set(unfinished)]
                for run in ready[: num_jobs - len(active)]:
                    active[run] = run.start(num_jobs)
                    waiting.remove(run)
                time.sleep(_POLL_SECONDS)
                shown.show(active)
                ended = [run for run, child in active.items() if child.poll() is not None]
                # Ctrl-C reaches the processes too; that they end is no failure then.
                for run in ended if signals.requested() is None else ():
                    run.check_ending(active.pop(run).returncode, run in shared)
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
        self._steps = {run: run.num_updates for run in runs}
        self._evaluations = dict.fromkeys(runs, 0)
        for run in waiting:
            self._read(run)
        self._bar = progress.make_bar(
            total=sum(run.num_updates for run in runs),
            initial=sum(self._steps.values()),
            unit="update",
            smoothing=0.05,  # Runs report now and then, at rates of their own.
            disable=not waiting,
        )

    def _read(self, run: Run) -> Optional[float]:
        """Reads how far a run is; returns its newest score if there is a new one."""
        records = run.records()
        scores = [r["normalized_score"] for r in records if r.get("normalized_score") is not None]
        self._steps[run] = max([record["step"] for record in records], default=0)
        before, self._evaluations[run] = self._evaluations[run], len(scores)
        return float(scores[-1]) if len(scores) > before else None

    def show(self, runs: Iterable[Run]) -> None:
        """Shows how far runs are, and the newest score among them."""
        for run in runs:
            score = self._read(run)
            if score is not None:
                self._bar.set_postfix_str(f"{run.title}: score {score:.1f}", refresh=False)
        steps = sum(self._steps.values())
        # A run resumes from its checkpoint, which may be older than its newest record.
        self._bar.initial = min(self._bar.initial, steps)
        self._bar.update(steps - self._bar.n)

    def finish(self, run: Run) -> None:
        """Counts the updates that a run with NaN or infinity does not make."""
        self.show([run])
        self._steps[run] = run.num_updates
        self.show([])

    def close(self) -> None:
        """Leaves the bar as it is."""
        self._bar.close()
