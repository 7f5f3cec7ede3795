"""Trains for hours and watches memory, file handles and speed.

usage: python -m tests.helpers.soak ROOT_DIR [MINUTES]

It starts `train` on the embedded Hopper data in ROOT_DIR (evaluations every 5,000 updates), exports
its policy every quarter of the time, stops it with SIGTERM after MINUTES (120), and prints what
came of it as JSON. The exit code is 0 if memory and file handles are flat and the updates/s of the
last tenth are at least 0.97 of the first's.
"""

import json
import pathlib
import signal
import subprocess
import sys
import time

import numpy as np

from tests.helpers import tiny_runs

_SAMPLE_SECONDS = 10.0
_WARM_UP = 0.2  # Share of the time in which caches and evaluations may still take memory.
_MOST_MIB_PER_HOUR = 20.0
_LEAST_SPEED = 0.97


def _command(name, *arguments):
    return [sys.executable, "-m", "fbrc_agent.cli", name, *map(str, arguments)]


def _start(root_dir, log):
    bindings = [
        *("STEPS = 100000000", "EVAL_INTERVAL = 5000", "BEHAVIOR_STEPS = 2000"),
        *("train.log_interval = 500", "train.checkpoint_interval = 2000"),
    ]
    files = ["--gin_file", "hopper.gin", "--gin_bindings", *bindings]
    return subprocess.Popen(
        _command("train", "--root_dir", root_dir, *files),
        cwd=tiny_runs.ROOT,
        stdout=log,
        stderr=log,
    )


def _memory_mib(process):
    lines = pathlib.Path(f"/proc/{process.pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("VmRSS"))


def _file_handles(process):
    return len(list(pathlib.Path(f"/proc/{process.pid}/fd").iterdir()))


def _speeds(root_dir):
    """Updates/s of the second stage between lines of metrics.jsonl, evaluations left out."""
    lines = [line for line in tiny_runs.read_lines(root_dir) if line["stage"] == "fbrc"]
    points = np.array(sorted({(line["step"], line["seconds"]) for line in lines}))
    steps, seconds = np.diff(points, axis=0).T
    return (steps / seconds)[1:][seconds[1:] > 0]  # The first interval holds the tracing.


def _summary(root_dir, samples, exit_code, exports):
    hours, memory, handles = np.array(samples).T
    late = hours > _WARM_UP * hours[-1]
    speeds = _speeds(root_dir)
    tenth = max(1, len(speeds) // 10)
    slope = float(np.polyfit(hours[late], memory[late], 1)[0])
    ratio = float(np.mean(speeds[-tenth:]) / np.mean(speeds[:tenth]))
    handle_slope = float(np.polyfit(hours[late], handles[late], 1)[0])
    flat = abs(handles[late][-1] - handles[late][0]) <= 2
    return {
        "hours": round(float(hours[-1]), 3),
        "updates": tiny_runs.read_lines(root_dir)[-1]["step"],
        "memory_mib": [round(float(m), 1) for m in (memory[late][0], memory.max(), memory[-1])],
        "memory_slope_mib_per_hour": round(slope, 2),
        "file_handles": [int(n) for n in (handles[late][0], handles.max(), handles[-1])],
        "file_handle_slope_per_hour": round(handle_slope, 2),
        "updates_per_second_first_tenth": round(float(np.mean(speeds[:tenth])), 2),
        "last_tenth_to_first": round(ratio, 4),
        "exports": exports,
        "exit_code": exit_code,
        "ok": bool(
            slope <= _MOST_MIB_PER_HOUR and flat and ratio >= _LEAST_SPEED and exit_code == 143
        ),
    }


def main(root_dir, minutes="120"):
    root, until = pathlib.Path(root_dir), float(minutes) * 60
    root.mkdir(parents=True)
    samples, exports, started = [], 0, time.monotonic()
    with open(root / "train.log", "w") as log:
        process = _start(root, log)
        while (passed := time.monotonic() - started) < until and process.poll() is None:
            samples.append((passed / 3600, _memory_mib(process), _file_handles(process)))
            if passed > (exports + 1) * until / 4:
                exports += 1
                output = root / "exports" / str(exports)
                command = _command("export", "--root_dir", root, "--output", output)
                subprocess.run(command, cwd=tiny_runs.ROOT, stdout=log, stderr=log, check=True)
            time.sleep(_SAMPLE_SECONDS)
        process.send_signal(signal.SIGTERM)
        summary = _summary(root, samples, process.wait(timeout=60), exports)
    print(json.dumps(summary, indent=2))
    return 0 if summary["ok"] else 1


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
