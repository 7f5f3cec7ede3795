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
    if not waiting:
        return
    active: dict[Run, subprocess.Popen[bytes]] = {}
    bar = Bar(runs)
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
            bar.bar.close()


def _start(run: Run, num_jobs: int) -> "subprocess.Popen[bytes]":
    run.write_gin()
    command = [sys.executable, "-m", "fbrc_agent.cli", "train", "--root_dir", run.root_dir]
    command += ["--gin_file", run.setting.gin_file, run.path("run.gin")]
    threads = {"TF_NUM_INTRAOP_THREADS": "1"} if num_jobs > 1 else {}
    environment = {**threads, **os.environ}
    with open(run.path("train.log"), "ab") as log:
        return subprocess.Popen(
            command, env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log
        )


def _check_ending(run: Run, code: int) -> None:
    """Raises what a process printed last, unless all went well or NaN is an outcome."""
    if code == 0 or (code == _EXIT_NOT_FINITE and run.is_done()):
        return
    with open(run.path("train.log"), encoding="utf-8", errors="replace") as log:
        *_, last = ["it printed nothing", *filter(str.strip, log)]
    raise InputError(
        f"{run.title}: the run ended with exit code {code} ({last.strip().rstrip('.')}); its log "
        f"is {log.name}."
    )


class Bar:
    """A bar over the updates of runs; one that met NaN or infinity counts as complete.

    Attributes:
      bar: The `tqdm.tqdm`.
    """

    def __init__(self, runs: Sequence[Run]):
        """Starts it at what was made before."""
        self._progress = {run: _progress(run) for run in runs}
        self.bar = progress.make_bar(
            total=sum(run.steps for run in runs),
            initial=sum(steps for steps, _ in self._progress.values()),
            unit="update",
            smoothing=0.05,  # Runs report now and then, at rates of their own.
        )

    def show(self, runs: Iterable[Run]) -> None:
        """Shows how far runs are, and the newest score among them."""
        for run in runs:
            before, self._progress[run] = self._progress[run], _progress(run)
            score = self._progress[run][1]
            if score is not None and score != before[1]:
                self.bar.set_postfix_str(f"{run.title}: score {score:.1f}", refresh=False)
        steps = sum(steps for steps, _ in self._progress.values())
        # A run resumes from its checkpoint, which may be older than its newest record.
        self.bar.initial = min(self.bar.initial, steps)
        self.bar.update(steps - self.bar.n)


def _progress(run: Run) -> tuple[int, Optional[float]]:
    """Returns the updates that a run has made, and its newest score."""
    log = run.log()
    if log is None:
        return 0, None
    return run.steps if run.is_done() else log.last_step, log.mean_of_last("normalized_score")
