"""Starts one run repeatedly in forked processes and kills each with SIGKILL, until it is complete.

usage: python -m tests.helpers.resume_worker ROOT_DIR SEED KILLS TRAIN_ARGUMENT...

TensorFlow is imported once and untouched before the forks, so that a start takes a second. KILLS is
either names of files or directories, with commas, each of which a kill waits for, or a number of
kills: every third then waits for something half written, a checkpoint or a log in turn, and the
last one for an exported policy; the others come at random. Prints a line for each kill and exits
with the code of the last start.
"""

import os
import pathlib
import random
import signal
import sys
import time
from collections.abc import Sequence

from fbrc_agent import cli  # noqa: F401
from fbrc_agent.training import report, trainer  # noqa: F401

# What is being written.
_CHECKPOINT = tuple(f"{stage}/train/checkpoints/*.tmp" for stage in ("fbrc", "behavior"))
_LOG = ("metrics.jsonl.*tmp", "operative_config.gin.*tmp")
_POLICY = ("policies/*/*.tmp",)
_AIM_SECONDS = 300.0


def _start(arguments: list[str]) -> int:
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            code = cli.main(arguments)
        finally:
            os._exit(code)
    return pid


def _matching(root: pathlib.Path, patterns: Sequence[str]) -> set[pathlib.Path]:
    return {path for pattern in patterns for path in root.glob(pattern)}


def _wait_to_kill(
    pid: int, root: pathlib.Path, generator: random.Random, patterns: Sequence[str]
) -> str:
    """Returns why the process is to be killed now, or '' if it has ended by itself."""
    seconds = generator.uniform(1.0, 10.0)
    old = _matching(root, patterns)
    if patterns == _CHECKPOINT:
        time.sleep(seconds)  # Not always the first one.
    until = time.monotonic() + (_AIM_SECONDS if patterns else seconds)
    while time.monotonic() < until:
        if os.waitpid(pid, os.WNOHANG)[0]:
            return ""
        new = _matching(root, patterns) - old
        if new:
            return f"while it wrote {sorted(new)[0].relative_to(root)}"
        time.sleep(0.0005 if patterns else 0.02)
    return "at random"


def _plan(kills: str) -> list[Sequence[str]]:
    """Returns the patterns of the files that each kill waits for; none for one at random."""
    if not kills.isdigit():
        return [(name,) for name in kills.split(",")]
    aimed = [_LOG if kill % 2 else _CHECKPOINT for kill in range(int(kills))]
    plan: list[Sequence[str]] = [aim if kill % 3 == 2 else () for kill, aim in enumerate(aimed)]
    return [*plan[:-1], _POLICY] if plan else []


def main(root_dir: str, seed: str, kills: str, *arguments: str) -> int:
    generator, root = random.Random(int(seed)), pathlib.Path(root_dir)
    for kill, patterns in enumerate(_plan(kills), 1):
        pid = _start(list(arguments))
        reason = _wait_to_kill(pid, root, generator, patterns)
        if not reason:
            print(f"the run was complete before kill {kill}", flush=True)
            return 1
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        print(f"kill {kill}: {reason}", flush=True)
    _, status = os.waitpid(_start(list(arguments)), 0)
    return os.WEXITSTATUS(status)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
