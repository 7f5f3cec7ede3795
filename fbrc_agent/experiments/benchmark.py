"""bin/benchmark: what was promised of speed and memory, measured on this machine.

Whatever is compared is measured in alternating rounds, in one process where it can be. A row's
number is the median over rounds of each round's own ratio, so that a machine that slows down in
between slows both sides; the quartiles over the rounds stand beside it.
"""

import dataclasses
import os
import statistics
import sys
import tempfile
from collections.abc import Sequence
from typing import Any, Optional

import tensorflow as tf

from fbrc_agent.experiments import (
    benchmark_io,
    benchmark_rows,
    benchmark_serving,
    benchmark_updates,
)
from fbrc_agent.utils.errors import InputError

SIZES = benchmark_io.Sizes()
QUICK_SIZES = benchmark_io.Sizes(
    batch_size=64,
    rows=20_000,
    gemm_size=256,
    seconds=0.05,
    updates_per_call=5,
    environment="Pendulum-v1",
    episodes=4,
    starts=1,
    memory_rounds=1,
    bindings=(
        "MixtureBehaviorNetwork.fc_layer_params = (16,)",
        "create_offset_network.fc_layer_params = (16, 16)",
        "create_actor_network.fc_layer_params = (16, 16)",
    ),
)
ROUNDS, QUICK_ROUNDS = 11, 2


def set_threads(intra_op: Optional[int], inter_op: Optional[int]) -> None:
    """Sets the sizes of TensorFlow's thread pools; None leaves TensorFlow's choice.

    Raises:
        InputError: If a number is below 1, or TensorFlow has started with others.
    """
    for flag, number, setter in (
        ("--intra_op_threads", intra_op, tf.config.threading.set_intra_op_parallelism_threads),
        ("--inter_op_threads", inter_op, tf.config.threading.set_inter_op_parallelism_threads),
    ):
        if number is None:
            continue
        if number < 1:
            raise InputError(f"{flag} is {number}; it must be 1 or more.")
        try:
            setter(number)
        except RuntimeError as error:
            raise InputError(f"{flag} {number}: TensorFlow has already started.") from error


def check_flags(output: str, rounds: Optional[int]) -> None:
    """Refuses, before anything is measured, what could not be written or counted.

    Raises:
        InputError: If `rounds` is below 1, or `output` cannot be a file.
    """
    if rounds is not None and rounds < 1:
        raise InputError(f"--rounds is {rounds}; it must be 1 or more.")
    directory = os.path.dirname(os.path.abspath(output))
    if not os.path.isdir(directory):
        raise InputError(f"--output {output}: there is no directory {directory}.")
    if os.path.isdir(output):
        raise InputError(f"--output {output}: is a directory; give the name of a JSON file.")
    if not os.access(directory, os.W_OK):
        raise InputError(f"--output {output}: the directory {directory} is not writable.")


def run(
    rows: Sequence[benchmark_rows.Row], sizes: benchmark_io.Sizes, rounds: int
) -> dict[str, Any]:
    """Measures rows; gin holds gin/fbrc.gin and the bindings of the sizes.

    Args:
        rows: What to measure.
        sizes: The sizes.
        rounds: Rounds of each group.

    Returns:
        The content of the JSON file: `rows`, the `rounds` of each group and their `medians`, and
        what it was measured on.
    """
    measured: dict[str, benchmark_rows.Rounds] = {}
    with tempfile.TemporaryDirectory(prefix="fbrc_benchmark") as directory:
        for group in dict.fromkeys(row.group for row in rows):
            wanted = [name for row in rows if row.group == group for name in row.contenders]
            contenders = _make_contenders(group, list(dict.fromkeys(wanted)), sizes, directory)
            count = {
                "memory": min(rounds, sizes.memory_rounds),
                "startup": sizes.starts,
                "serving_size": 1,
            }
            measured[group] = measure(group, contenders, count.get(group, rounds))
    return {
        "rows": [benchmark_rows.row_result(row, measured[row.group]) for row in rows],
        "rounds": measured,
        "medians": {
            group: {name: statistics.median(values) for name, values in numbers.items()}
            for group, numbers in measured.items()
        },
        "quick": sizes != SIZES,
        "sizes": dataclasses.asdict(sizes),
        **benchmark_io.describe_machine(),
    }


def measure(
    group: str, contenders: dict[str, benchmark_io.Contender], rounds: int
) -> dict[str, list[float]]:
    """Calls the contenders in turn, in every other round backwards; returns numbers by round."""
    numbers: benchmark_rows.Rounds = {}
    names = list(contenders)
    for index in range(rounds):
        for name in names if index % 2 == 0 else reversed(names):
            for key, value in contenders[name]().items():
                numbers.setdefault(key, []).append(float(value))
        latest = ", ".join(f"{key} {values[-1]:.4g}" for key, values in numbers.items())
        print(f"{group} {index + 1}/{rounds}: {latest}", file=sys.stderr, flush=True)
    return numbers


def _make_contenders(
    group: str, wanted: list[str], sizes: benchmark_io.Sizes, directory: str
) -> dict[str, benchmark_io.Contender]:
    print(f"{group}: {', '.join(wanted)}", file=sys.stderr, flush=True)
    if group == "updates":
        return benchmark_updates.make_updates(sizes, wanted)
    if group == "evaluation":
        return benchmark_updates.make_evaluation(sizes)
    make = {
        "learner": benchmark_updates.make_learner,
        "memory": benchmark_io.make_memory,
        "loading": benchmark_io.make_loading,
        "startup": benchmark_io.make_startup,
        "serving": benchmark_serving.make_latency,
        "serving_load": benchmark_serving.make_loads,
        "serving_size": benchmark_serving.make_sizes,
    }[group]
    return make(sizes, directory)


def table(result: dict[str, Any]) -> str:
    """Returns what is printed of a result: a line for each row, then the machine."""
    cells = [("what", "measured", "goal", "met")]
    for row in result["rows"]:
        low, high = row["quartiles"]
        spread = f" ({low:.3f} to {high:.3f})" if len(row["values"]) > 1 else ""
        sign = "<=" if row["at_most"] else ">="
        least = f", at the least {row['minimum']:g}" if row["minimum"] is not None else ""
        cells.append(
            (
                f"{row['name']}: {row['what']}",
                f"{row['value']:.3f}{spread}",
                "-" if row["goal"] is None else f"{sign} {row['goal']:g}{least}",
                row["met"],
            )
        )
    widths = [max(map(len, column)) for column in zip(*cells)]
    lines = [" | ".join(c.ljust(w) for c, w in zip(row, widths)).rstrip() for row in cells]
    lines.insert(1, "-|-".join("-" * width for width in widths))
    machine, threads = result["machine"], result["threads"]
    versions = ", ".join(f"{name} {version}" for name, version in result["versions"].items())
    if result["quick"]:
        lines.append("measured with --quick: the goals are those of the full sizes")
    return "\n".join(
        [
            *lines,
            "",
            f"machine: {machine['cpu']}, {machine['cores']} cores, "
            f"{machine['ram_bytes'] / 2**30:.1f} GiB, {machine['gpus']} GPUs",
            f"versions: {versions}",
            f"threads: intra-op {threads['intra_op']}, inter-op {threads['inter_op']} "
            "(0: TensorFlow's choice)",
            f"revision: {result['git_revision'] or 'not known'}",
        ]
    )
