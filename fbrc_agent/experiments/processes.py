"""Runs of a grid as child processes, several at a time.

What is done is not run again; what was interrupted resumes from its checkpoint.
"""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterable, Sequence
from typing import Optional

from fbrc_agent.experiments.grid import Run
from fbrc_agent.utils import progress, signals
from fbrc_agent.utils.errors import InputError

_POLL_SECONDS = 0.5
_EXIT_NOT_FINITE = 3


def run_all(runs: Sequence[Run], num_jobs: int) -> None:
    """Runs what is not done, seed by seed, with a bar over the updates of all.

    Args:
      runs: The runs; those whose networks they take are run first.
      num_jobs: How many may run at a time.

    Raises:
      InputError: If a run fails, or its directory holds another run; the others were saved.
      signals.Interruption: If a signal asked for it; the runs were saved.
    """
    # Each once, in the order in which they start.
    ordered = sorted(runs, key=lambda run: run.seed)
    runs = list(dict.fromkeys(r for run in ordered for r in (*run.pretrained.values(), run)))
    for run in runs:
        run.check()
    waiting = [run for run in runs if not run.is_done()]
    bar = Bar(runs, is_shown=bool(waiting))
    active: dict[Run, subprocess.Popen[bytes]] = {}
    with signals.deferred():
        try:
            while (waiting or active) and signals.requested() is None:
                unfinished = {*waiting, *active}
                ready = [r for r in waiting if unfinished.isdisjoint(r.pretrained.values())]
                for run in ready[: num_jobs - len(active)]:
                    active[run] = _start(run, num_jobs)
                    waiting.remove(run)
                time.sleep(_POLL_SECONDS)
                ended = [run for run, child in active.items() if child.poll() is not None]
                bar.show(active)
                # Ctrl-C reaches the processes too; that they end is no failure then.
                for run in ended if signals.requested() is None else ():
                    _check_ending(run, active.pop(run).returncode)
        finally:
            for child in active.values():  # They save and end.
                child.send_signal(signal.SIGTERM)
            for child in active.values():
                child.wait()
            bar.close()


def _log_path(run: Run) -> str:
    return os.path.join(run.root_dir, "train.log")


def _start(run: Run, num_jobs: int) -> "subprocess.Popen[bytes]":
    run.write_gin()
    command = [sys.executable, "-m", "fbrc_agent.cli", "train", "--root_dir", run.root_dir]
    command += ["--gin_file", run.setting.gin_file, run.gin_path]
    environment = dict(os.environ)
    if num_jobs > 1:
        environment.setdefault("TF_NUM_INTRAOP_THREADS", "1")
    with open(_log_path(run), "ab") as log:
        return subprocess.Popen(
            command, env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log
        )


def _check_ending(run: Run, code: int) -> None:
    """Raises what a process printed last, unless all went well or NaN is an outcome."""
    if code == 0 or (code == _EXIT_NOT_FINITE and run.is_done()):
        return
    with open(_log_path(run), encoding="utf-8", errors="replace") as file:
        lines = [line for line in file.read().splitlines() if line.strip()]
    message = lines[-1].rstrip(".") if lines else "it printed nothing"
    raise InputError(
        f"{run.title}: the run ended with exit code {code} ({message}); its log is "
        f"{_log_path(run)}."
    )


class Bar:
    """A bar over the updates of runs; one that met NaN or infinity counts as complete.

    Attributes:
      bar: The `tqdm.tqdm`.
    """

    def __init__(self, runs: Sequence[Run], is_shown: bool = True):
        """Starts it at what was made before."""
        self._scores = dict.fromkeys(runs, 0)  # How many each has.
        self._steps = {run: self._read(run)[0] for run in runs}
        self.bar = progress.make_bar(
            total=sum(run.steps for run in runs),
            initial=sum(self._steps.values()),
            unit="update",
            smoothing=0.05,  # Runs report now and then, at rates of their own.
            disable=not is_shown,
        )

    def _read(self, run: Run) -> tuple[int, Optional[float]]:
        """Returns the updates of a run, and its newest score if there is a new one."""
        log = run.log()
        if log is None:
            return 0, None
        _, scores = log.curve("normalized_score")
        before, self._scores[run] = self._scores[run], len(scores)
        steps = run.steps if run.is_done() else log.last_step
        return steps, scores[-1] if len(scores) > before else None

    def show(self, runs: Iterable[Run]) -> None:
        """Shows how far runs are, and the newest score among them."""
        for run in runs:
            self._steps[run], score = self._read(run)
            if score is not None:
                self.bar.set_postfix_str(f"{run.title}: score {score:.1f}", refresh=False)
        steps = sum(self._steps.values())
        # A run resumes from its checkpoint, which may be older than its newest record.
        self.bar.initial = min(self.bar.initial, steps)
        self.bar.update(steps - self.bar.n)

    def close(self) -> None:
        """Leaves the bar as it is."""
        self.bar.close()
