"""Starts one run again and again in forked processes and kills each with SIGKILL, until it is done.

usage: python -m tests.resume_worker ROOT_DIR SEED NUM_KILLS TRAIN_ARGUMENT...

TensorFlow is imported once and untouched before the forks, so that a start takes a second. Every
third kill waits for a checkpoint or a policy that is half written; the others come at random.
Prints a line for each kill, then the exit code of the last start.
"""

import os
import pathlib
import random
import signal
import sys
import time

from fbrc_agent import cli, report, train  # noqa: F401

# Names of what is being written: TensorFlow's data of a checkpoint, our own temporary names.
_HALF_WRITTEN = ("*_temp", "*.tempstate*", "*tmp*")


def _start(arguments: list[str]) -> int:
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            code = cli.main(arguments)
        finally:
            os._exit(code)
    return pid


def _half_written(root: pathlib.Path) -> set[pathlib.Path]:
    return {path for pattern in _HALF_WRITTEN for path in root.rglob(pattern)}


def _wait_to_kill(pid: int, root: pathlib.Path, generator: random.Random, aimed: bool) -> str:
    """Returns why the process is to be killed now, or '' if it has ended by itself."""
    until = time.monotonic() + generator.uniform(1.0, 12.0)
    old = _half_written(root) if root.exists() else set()
    time.sleep(1.0 if aimed else 0.0)
    while time.monotonic() < until + (30.0 if aimed else 0.0):
        if os.waitpid(pid, os.WNOHANG)[0]:
            return ""
        new = _half_written(root) - old if aimed and root.exists() else set()
        if new:
            return f"while it wrote {sorted(new)[0].name}"
        time.sleep(0.0005 if aimed else 0.02)
    return "at random"


def main(root_dir: str, seed: str, num_kills: str, *arguments: str) -> int:
    generator, root = random.Random(int(seed)), pathlib.Path(root_dir)
    for kill in range(int(num_kills)):
        pid = _start(list(arguments))
        reason = _wait_to_kill(pid, root, generator, aimed=kill % 3 == 2)
        if not reason:
            print(f"the run was complete before kill {kill + 1}", flush=True)
            return 1
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        print(f"kill {kill + 1}: {reason}", flush=True)
    _, status = os.waitpid(_start(list(arguments)), 0)
    return os.WEXITSTATUS(status)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
