"""What the benchmark measures of files and processes, and what it tells of the machine."""

import dataclasses
import json
import os
import platform
import subprocess
import sys
import time
from typing import Any, Callable

import h5py
import numpy as np
import tensorflow as tf

from fbrc_agent.datasets import batches, offline_data
from fbrc_agent.utils import provenance

# One pass of a measurement: what was measured, by name.
Contender = Callable[[], dict[str, float]]

_EPISODE_STEPS = 1000
_BASE_ROWS = 2000
_DRAWN_BATCHES = 10
_START_TIMEOUT_SECONDS = 600
_KEYS = ("observations", "actions", "rewards", "terminals", "timeouts")


@dataclasses.dataclass(frozen=True)
class Sizes:
    """The sizes that are measured; those of HalfCheetah by default.

    Attributes:
        observation_size: S.
        action_size: A.
        batch_size: B.
        rows: Rows of the synthetic data.
        gemm_size: Rows and columns of the matrices whose product is the ceiling.
        seconds: Time that each contender gets in a round, at the least.
        updates_per_call: Updates in one call, of the Learner or of a loop of its kind.
        environment: The environment of the evaluation.
        episodes: Episodes of an evaluation.
        starts: How often a run is started; the last start counts.
        memory_rounds: Rounds of the memory, at the most; its peak hardly varies.
        bindings: gin bindings after gin/fbrc.gin.
    """

    observation_size: int = 17
    action_size: int = 6
    batch_size: int = 256
    rows: int = 1_000_000
    gemm_size: int = 2048
    seconds: float = 1.0
    updates_per_call: int = 100
    environment: str = "HalfCheetah-v4"
    episodes: int = 10
    starts: int = 2
    memory_rounds: int = 3
    bindings: tuple[str, ...] = ()


def synthetic_columns(sizes: Sizes, rows: int) -> dict[str, np.ndarray]:
    """Returns the columns of a D4RL-layout file: noise, in episodes that a time limit cuts."""
    generator = np.random.default_rng(0)
    shape = (rows, sizes.observation_size)
    timeouts = np.arange(1, rows + 1) % _EPISODE_STEPS == 0
    return {
        "observations": generator.standard_normal(shape, np.float32),
        "actions": generator.random((rows, sizes.action_size), np.float32) * 1.98 - 0.99,
        "rewards": generator.standard_normal(rows, np.float32),
        "terminals": np.zeros(rows, bool),
        "timeouts": timeouts,
    }


def synthetic_data(sizes: Sizes, rows: int) -> offline_data.OfflineData:
    """Returns transitions of noise."""
    columns = synthetic_columns(sizes, rows)
    return offline_data.OfflineData.from_arrays(
        observations=columns["observations"],
        actions=columns["actions"],
        rewards=columns["rewards"],
        next_observations=np.roll(columns["observations"], -1, axis=0),
        discounts=np.ones(rows, np.float32),
    )


def make_loading(sizes: Sizes, directory: str) -> dict[str, Contender]:
    """Returns contenders that take the seconds of loading a file with and without this package."""
    path = _data_file(sizes, directory, sizes.rows)

    def load() -> dict[str, float]:
        started = time.perf_counter()
        offline_data.load_dataset(path)
        return {"load_seconds": time.perf_counter() - started}

    def read() -> dict[str, float]:
        started = time.perf_counter()
        with h5py.File(path, "r") as file:
            columns = [file[key][()] for key in _KEYS]
        seconds = time.perf_counter() - started
        del columns
        return {"h5py_seconds": seconds}

    for contender in (load, read):  # The first one brings the file into memory.
        contender()
    return {"load": load, "h5py": read}


def make_memory(sizes: Sizes, directory: str) -> dict[str, Contender]:
    """Returns a contender that takes the peak memory of processes with much and little data."""
    paths = [_data_file(sizes, directory, rows) for rows in (sizes.rows, _BASE_ROWS)]

    def measure() -> dict[str, float]:
        full, base = (_memory_of(path, sizes.batch_size) for path in paths)
        return {
            "peak_bytes": full["peak_bytes"],
            "base_bytes": base["peak_bytes"],
            # Of the two sets, as the base has its own arrays too.
            "array_bytes": full["array_bytes"] - base["array_bytes"],
        }

    return {"memory": measure}


def make_startup(sizes: Sizes, directory: str) -> dict[str, Contender]:
    """Returns a contender that takes the seconds from the start of a run to its first update.

    The update is seen by the first line of metrics.jsonl, hence with the tracing of what that line
    reports.
    """
    del sizes
    count = 0

    def start() -> dict[str, float]:
        nonlocal count
        count += 1
        return {"startup_seconds": _seconds_to_first_update(os.path.join(directory, f"run{count}"))}

    return {"startup": start}


def describe_machine() -> dict[str, Any]:
    """Returns the machine, the versions, the threads and the revision, for the JSON file."""
    ram = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    threading = tf.config.threading
    return {
        "machine": {
            "cpu": _cpu_model(),
            "cores": len(os.sched_getaffinity(0)),
            "ram_bytes": ram,
            "gpus": len(tf.config.list_physical_devices("GPU")),
        },
        "versions": provenance.versions(),
        # 0 is TensorFlow's choice, a thread for each core.
        "threads": {
            "intra_op": threading.get_intra_op_parallelism_threads()
            or int(os.environ.get("TF_NUM_INTRAOP_THREADS", 0)),
            "inter_op": threading.get_inter_op_parallelism_threads()
            or int(os.environ.get("TF_NUM_INTEROP_THREADS", 0)),
        },
        "git_revision": provenance.git_revision(),
    }


def _cpu_model() -> str:
    with open("/proc/cpuinfo", encoding="utf-8") as file:
        models = [line.split(":", 1)[1].strip() for line in file if line.startswith("model name")]
    return models[0] if models else platform.machine()


def report_memory(path: str, batch_size: int) -> None:
    """Loads a file, draws batches, and prints this process's peak memory and its data's bytes."""
    data = offline_data.load_dataset(path)
    for _ in batches.make_tf_dataset(data, batch_size, seed=0).take(_DRAWN_BATCHES):
        pass
    arrays = (
        data.observations,
        data.actions,
        data.rewards,
        data.next_observations,
        data.discounts,
    )
    array_bytes = sum(array.nbytes for array in arrays)
    print(json.dumps({"peak_bytes": peak_bytes(), "array_bytes": array_bytes}))


def peak_bytes() -> int:
    """Returns the peak of the resident memory since this program was started.

    `ru_maxrss` also counts what the process was before it became this program: with vfork, the
    whole of its parent.
    """
    with open("/proc/self/status", encoding="ascii") as file:
        line = next(line for line in file if line.startswith("VmHWM:"))
    return int(line.split()[1]) * 1024


def _memory_of(path: str, batch_size: int) -> dict[str, float]:
    code = "import sys; from fbrc_agent import benchmark_io as b; "
    code += "b.report_memory(sys.argv[1], int(sys.argv[2]))"
    process = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code, path, str(batch_size)],
        capture_output=True,
        text=True,
    )
    if process.returncode:
        raise RuntimeError(f"The process that measures memory failed: {process.stderr[-2000:]}")
    return json.loads(process.stdout.splitlines()[-1])


def _data_file(sizes: Sizes, directory: str, rows: int) -> str:
    path = os.path.join(directory, f"{rows}.hdf5")
    if not os.path.exists(path):
        offline_data.save_d4rl_hdf5(path, **synthetic_columns(sizes, rows), attributes={})
    return path


def _seconds_to_first_update(root_dir: str) -> float:
    metrics, log = os.path.join(root_dir, "metrics.jsonl"), f"{root_dir}.log"
    command = [sys.executable, "-m", "fbrc_agent.cli", "train", "--root_dir", root_dir]
    command += ["--gin_file", "quickstart.gin", "--gin_bindings", "train.log_interval = 1"]
    with open(log, "w", encoding="utf-8") as output:
        started = time.perf_counter()
        process = subprocess.Popen(command, stdout=output, stderr=output)
        try:
            while not os.path.exists(metrics) or not os.path.getsize(metrics):
                seconds = time.perf_counter() - started
                if process.poll() is not None or seconds > _START_TIMEOUT_SECONDS:
                    with open(log, encoding="utf-8") as file:
                        raise RuntimeError(f"The run made no update: {file.read()[-2000:]}")
                time.sleep(0.02)
            return time.perf_counter() - started
        finally:
            process.kill()
            process.wait()
