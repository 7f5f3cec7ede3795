"""The rows of bin/benchmark: promises, their goals and how they follow from what is measured."""

import dataclasses
import statistics
from collections.abc import Sequence
from typing import Any, Callable, Optional

import numpy as np

from fbrc_agent.experiments import benchmark_serving
from fbrc_agent.utils.errors import InputError

# Everything measured in one group of rows: a number for each round.
Rounds = dict[str, list[float]]


@dataclasses.dataclass(frozen=True)
class Row:
    """One promise.

    Attributes:
        name: As `--only` takes it.
        what: What is measured.
        group: What it is measured together with.
        contenders: What of the group it needs.
        goal: The number to reach; None for what is only told.
        values: The row's number in each round.
        at_most: Whether the goal is an upper bound.
        minimum: What has to be reached in any case, if that is not the goal.
    """

    name: str
    what: str
    group: str
    contenders: tuple[str, ...]
    goal: Optional[float]
    values: Callable[[Rounds], list[float]]
    at_most: bool = False
    minimum: Optional[float] = None


def _ratio(numerator: str, denominator: str) -> Callable[[Rounds], list[float]]:
    return lambda rounds: [a / b for a, b in zip(rounds[numerator], rounds[denominator])]


def _micro(seconds: str) -> Callable[[Rounds], list[float]]:
    return lambda rounds: [1e6 * value for value in rounds[seconds]]


def _gemm_share(rounds: Rounds) -> list[float]:
    ways = [rounds["one_product_flops"], rounds["product_per_core_flops"]]
    ceiling = max(ways, key=statistics.median)
    updates = zip(rounds["flop_per_update"], rounds["fbrc_updates_per_second"], ceiling)
    return [flop * rate / best for flop, rate, best in updates]


def _memory_factor(rounds: Rounds) -> list[float]:
    measured = zip(rounds["peak_bytes"], rounds["base_bytes"], rounds["array_bytes"])
    return [(peak - base) / arrays for peak, base, arrays in measured]


def _updates_row(
    name: str,
    what: str,
    first: str,
    second: str,
    goal: Optional[float],
    minimum: Optional[float] = None,
) -> Row:
    values = _ratio(f"{first}_updates_per_second", f"{second}_updates_per_second")
    return Row(name, what, "updates", (first, second), goal, values, minimum=minimum)


def _one_call_rows() -> list[Row]:
    """Returns the ratios of agents that are called from Python for each update."""
    return [
        _updates_row(
            f"calls_{first}_to_{second}",
            f"updates/s, a call from Python for each, {what}",
            f"{first}_calls",
            f"{second}_calls",
            None,
        )
        for first, second, what in (
            ("fbrc", "sac", "F-BRC : SAC"),
            ("fbrc", "cql", "F-BRC : CQL"),
            ("behavior", "fbrc", "behavior : F-BRC"),
        )
    ]


def _serving_rows() -> list[Row]:
    """Returns the rows of `--serving`: the export against the same policy in other forms."""
    rows = []
    for size in benchmark_serving.BATCH_SIZES:
        half = 0.5 if size == 1 else None
        for kind, own, other, form, goal in (
            ("", "export", "saver", "PolicySaver's", half),
            ("session_", "session_export", "session_saver", "PolicySaver's in a session", half),
            ("eager_", "export", "eager", "GreedyPolicy", None),
            ("function_", "export", "function", "GreedyPolicy in a tf.function", None),
        ):
            what = f"seconds, export : {form}, batch {size}"
            values = _ratio(f"{own}_{size}_seconds", f"{other}_{size}_seconds")
            name = f"serving_{kind}{size}"
            rows.append(Row(name, what, "serving", (own, other), goal, values, at_most=True))
        for kind, own, form in (
            ("", "export", "export"),
            ("session_", "session_export", "export in a session"),
        ):
            what, values = f"microseconds, {form}, batch {size}", _micro(f"{own}_{size}_seconds")
            rows.append(Row(f"serving_{kind}us_{size}", what, "serving", (own,), None, values))
    for name, other, form in (
        ("serving_load", "saver", "PolicySaver's"),
        ("serving_load_python", "python", "network and checkpoint"),
    ):
        what = f"seconds from the file to the first action, export : {form}"
        values = _ratio("export_load_seconds", f"{other}_load_seconds")
        rows.append(Row(name, what, "serving_load", ("export", other), None, values, at_most=True))
    for name, own, form, goal in (
        ("serving_size", "export_bytes", "export", 1.2),
        ("serving_size_saver", "saver_bytes", "PolicySaver's", None),
    ):
        what, values = f"bytes, {form} : the actor's weights", _ratio(own, "weight_bytes")
        rows.append(Row(name, what, "serving_size", ("bytes",), goal, values, at_most=True))
    return rows


ROWS = (
    _updates_row("fbrc_to_sac", "updates/s, F-BRC : SAC", "fbrc", "sac", 1.0, 0.85),
    _updates_row("fbrc_to_cql", "updates/s, F-BRC : CQL", "fbrc", "cql", 6.0, 4.5),
    Row(
        "gemm_share",
        "FLOP/s, F-BRC update : large products",
        "updates",
        ("fbrc", "gemm"),
        0.85,
        _gemm_share,
        minimum=0.75,
    ),
    _updates_row("behavior_to_fbrc", "updates/s, behavior : F-BRC", "behavior", "fbrc", 5.0),
    _updates_row(
        "no_penalty", "updates/s, without penalty : F-BRC", "fbrc_no_penalty", "fbrc", None
    ),
    _updates_row(
        "own_sample",
        "updates/s, alpha on a sample of its own : F-BRC",
        "fbrc_own_sample",
        "fbrc",
        None,
    ),
    _updates_row(
        "shared_pass",
        "updates/s, one critic pass for penalty and actor : F-BRC",
        "fbrc_shared_pass",
        "fbrc",
        None,
    ),
    _updates_row(
        "shared_pass_to_sac",
        "updates/s, one critic pass for penalty and actor : SAC",
        "fbrc_shared_pass",
        "sac",
        None,
    ),
    _updates_row("jit", "updates/s, compiled by XLA : F-BRC", "fbrc_jit", "fbrc", None),
    *_one_call_rows(),
    Row(
        "learner_to_constant",
        "updates/s in the Learner, data : one batch",
        "learner",
        ("data", "constant"),
        0.97,
        _ratio("learner_data_updates_per_second", "learner_constant_updates_per_second"),
    ),
    Row(
        "evaluation",
        "steps/s, episodes together : one by one",
        "evaluation",
        ("together", "one_by_one"),
        4.0,
        _ratio("together_steps_per_second", "one_by_one_steps_per_second"),
    ),
    Row(
        "memory",
        "peak memory above the base : bytes of the arrays",
        "memory",
        ("memory",),
        1.5,
        _memory_factor,
        at_most=True,
    ),
    Row(
        "loading",
        "seconds, load_dataset : h5py alone",
        "loading",
        ("load", "h5py"),
        1.3,
        _ratio("load_seconds", "h5py_seconds"),
        at_most=True,
    ),
    Row(
        "startup",
        "seconds from the start to the first update",
        "startup",
        ("startup",),
        15.0,
        lambda rounds: rounds["startup_seconds"][-1:],  # The earlier ones warm the caches.
        at_most=True,
    ),
    *_serving_rows(),
)


def select_rows(names: Optional[Sequence[str]], serving: bool = False) -> list[Row]:
    """Returns the rows of these names, all for None, in the order of `ROWS`.

    Args:
        names: Names of rows.
        serving: Whether the rows of exported policies are wanted: beside `names`, or alone.

    Raises:
        InputError: If there is no row of one of the names.
    """
    known = [row.name for row in ROWS]
    for name in names or ():
        if name not in known:
            raise InputError(f"--only {name}: there is no such row; the rows are {known}.")
    if serving:
        names = [*(names or ()), *(row.name for row in ROWS if row.group.startswith("serving"))]
    return [row for row in ROWS if names is None or row.name in names]


def row_result(row: Row, rounds: Rounds) -> dict[str, Any]:
    """Returns a row's entry of the JSON file; `met` is 'yes', 'minimum' or 'no'."""
    values = row.values(rounds)
    value = statistics.median(values)

    def reaches(bound: float) -> bool:
        return value <= bound if row.at_most else value >= bound

    met = "-" if row.goal is None else "yes" if reaches(row.goal) else "no"
    if met == "no" and row.minimum is not None and reaches(row.minimum):
        met = "minimum"
    return {
        "name": row.name,
        "what": row.what,
        "value": value,
        "quartiles": [float(q) for q in np.quantile(values, [0.25, 0.75])],
        "values": values,
        "goal": row.goal,
        "minimum": row.minimum,
        "at_most": row.at_most,
        "met": met,
    }
