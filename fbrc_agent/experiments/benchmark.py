"""bin/benchmark: speed and memory of this package against their goals, on this machine.

What is compared is measured in alternating rounds, in one process where possible. A row's number
is the median over rounds of each round's own ratio, so that a machine that slows down in between
slows both sides; the quartiles over the rounds stand beside it.
"""

import dataclasses
import sys
import tempfile
from collections.abc import Mapping, Sequence
from typing import Any, Callable, NamedTuple, Optional

import numpy as np

from fbrc_agent.experiments import benchmark_serving, report
from fbrc_agent.experiments import benchmark_training as training
from fbrc_agent.experiments.benchmark_training import Contender, Sizes
from fbrc_agent.utils import atomic_files, checks, json_files, tables
from fbrc_agent.utils.errors import InputError

SIZES = Sizes()
QUICK_SIZES = Sizes(
    rounds=2,
    batch_size=64,
    rows=20_000,
    gemm_size=256,
    seconds=0.05,
    updates_per_call=5,
    environment="Pendulum-v1",
    episodes=4,
    bindings=(
        "MixtureBehaviorNetwork.fc_layer_params = (16,)",
        "create_offset_network.fc_layer_params = (16, 16)",
        "create_actor_network.fc_layer_params = (16, 16)",
    ),
)
# Groups that start processes have fewer rounds.
_MOST_ROUNDS = {"memory": 3, "startup": 1}
_GROUPS: Mapping[str, Callable[[Sizes, str, Sequence[str]], dict[str, Contender]]] = {
    "updates": training.make_updates,
    "learner": training.make_learner,
    "evaluation": training.make_evaluation,
    "memory": training.make_memory,
    "loading": training.make_loading,
    "startup": training.make_startup,
    "serving": benchmark_serving.make_latency,
}


class Row(NamedTuple):
    """A line of the table: a contender's number, or its ratio to that of another one."""

    name: str  # As `--only` takes it.
    what: str
    group: str  # What is measured together, a key of `_GROUPS`.
    contenders: tuple[str, ...]
    goal: Optional[float] = None
    minimum: Optional[float] = None  # Acceptable at least, where that is not the goal.
    at_most: bool = False  # Whether the goal is an upper bound.


def _serving_rows(size: int) -> list[Row]:
    """Returns the rows of exported policies at a batch size: the export against other forms."""

    def row(name: str, what: str, *kinds: str, goal: Optional[float] = None) -> Row:
        contenders = tuple(f"{kind}_{size}" for kind in kinds)
        texts = f"serving_{name}{size}", f"{what}, batch {size}"
        return Row(*texts, "serving", contenders, goal, at_most=True)

    goal, session = 0.5 if size == 1 else None, ("session_export", "session_saver")
    return [
        row("", "seconds, export : PolicySaver's", "export", "saver", goal=goal),
        row("session_", "seconds, export : PolicySaver's in a session", *session, goal=goal),
        row("eager_", "seconds, export : GreedyPolicy", "export", "eager"),
        row("function_", "seconds, export : GreedyPolicy in a tf.function", "export", "function"),
        row("us_", "microseconds, export", "export"),
        row("session_us_", "microseconds, session_export", "session_export"),
    ]


ROWS = (
    Row("fbrc_to_sac", "updates/s, F-BRC : SAC", "updates", ("fbrc", "sac"), 1.0, 0.85),
    Row("fbrc_to_cql", "updates/s, F-BRC : CQL", "updates", ("fbrc", "cql"), 6.0, 4.5),
    Row("gemm_share", "FLOP/s, F-BRC : large products", "updates", ("fbrc", "gemm"), 0.85, 0.75),
    Row("behavior_to_fbrc", "updates/s, behavior : F-BRC", "updates", ("behavior", "fbrc"), 5.0),
    Row("learner_to_constant", "updates/s, data : a batch", "learner", ("data", "constant"), 0.97),
    Row("evaluation", "steps/s, together : one by one", "evaluation", ("together", "single"), 4.0),
    Row("memory", "peak memory : bytes of the arrays", "memory", ("memory",), 1.5, None, True),
    Row("loading", "seconds, load_dataset : h5py", "loading", ("load", "h5py"), 1.3, None, True),
    Row("startup", "seconds to the first update", "startup", ("startup",), 15.0, None, True),
    *(row for size in benchmark_serving.BATCH_SIZES for row in _serving_rows(size)),
)


def select_rows(names: Optional[Sequence[str]], serving: bool = False) -> list[Row]:
    """Returns the rows of these names, all for None, in the order of `ROWS`.

    With `serving` those of exported policies are added to the names, or returned alone.
    """
    known = [row.name for row in ROWS]
    for name in set(names or ()) - set(known):
        raise InputError(f"--only {name}: there is no such row; the rows are {known}.")
    if serving:
        names = [*(names or ()), *(row.name for row in ROWS if row.group == "serving")]
    return [row for row in ROWS if names is None or row.name in names]


def run(rows: Sequence[Row], sizes: Sizes, output: str) -> dict[str, Any]:
    """Measures rows, with gin/fbrc.gin and the bindings of the sizes parsed.

    Args:
      rows: The rows.
      sizes: What is measured, and how often.
      output: The JSON file to write.

    Returns:
      The file's content: `rows`, the numbers of each group by round, and the circumstances.

    Raises:
      InputError: If there are no rounds, or `output` cannot be written.
    """
    checks.check_integer("--rounds", sizes.rounds, 1)
    atomic_files.check_path(output)
    measured: dict[str, dict[str, list[float]]] = {}
    with tempfile.TemporaryDirectory(prefix="fbrc_benchmark") as directory:
        for group in dict.fromkeys(row.group for row in rows):
            names = [name for row in rows if row.group == group for name in row.contenders]
            contenders = _GROUPS[group](sizes, directory, list(dict.fromkeys(names)))
            rounds = min(sizes.rounds, _MOST_ROUNDS.get(group, sizes.rounds))
            measured[group] = measure(group, contenders, rounds)
    result = {
        "rows": [row_result(row, measured[row.group]) for row in rows],
        "rounds": measured,
        "sizes": dataclasses.asdict(sizes),
        **report.circumstances(),
    }
    json_files.write_json(output, result)
    return result


def measure(group: str, contenders: Mapping[str, Contender], rounds: int) -> dict[str, list[float]]:
    """Calls the contenders in turn, in every other round backwards; returns numbers by round."""
    numbers: dict[str, list[float]] = {name: [] for name in contenders}
    for index in range(rounds):
        for name in numbers if index % 2 == 0 else reversed(numbers):
            numbers[name].append(float(contenders[name]()))
        latest = ", ".join(f"{name} {values[-1]:.4g}" for name, values in numbers.items())
        print(f"{group} {index + 1}/{rounds}: {latest}", file=sys.stderr, flush=True)
    return numbers


def row_result(row: Row, rounds: Mapping[str, list[float]]) -> dict[str, Any]:
    """Returns a row's entry of the JSON file; `met` is 'yes', 'minimum', 'no' or '-'."""
    values = rounds[row.contenders[0]]
    for other in row.contenders[1:]:
        values = [a / b for a, b in zip(values, rounds[other])]
    measured = spread(values)

    def reaches(bound: Optional[float]) -> bool:
        if bound is None:
            return False
        return measured["median"] <= bound if row.at_most else measured["median"] >= bound

    met = "minimum" if reaches(row.minimum) else "no"
    met = "-" if row.goal is None else "yes" if reaches(row.goal) else met
    return {**row._asdict(), **measured, "values": values, "met": met}


def spread(values: Any) -> dict[str, Any]:
    """Returns the median and the quartiles of the rounds of a measurement."""
    low, median, high = (float(quantile) for quantile in np.quantile(values, [0.25, 0.5, 0.75]))
    return {"median": median, "quartiles": [low, high]}


def spread_text(numbers: Mapping[str, Any], digits: int) -> str:
    """Returns 'median (low to high)' of what `spread` returned."""
    return "{:.{n}f} ({:.{n}f} to {:.{n}f})".format(
        numbers["median"], *numbers["quartiles"], n=digits
    )


def table(result: Mapping[str, Any]) -> str:
    """Returns the table of a result, a line for each row, and what it was measured on."""
    cells = [("what", "measured", "goal", "met")]
    for row in result["rows"]:
        measured = spread_text(row, digits=3)
        goal = "-" if row["goal"] is None else f"{'<=' if row['at_most'] else '>='} {row['goal']:g}"
        goal += "" if row["minimum"] is None else f", at least {row['minimum']:g}"
        cells.append((f"{row['name']}: {row['what']}", measured, goal, row["met"]))
    quick = "\nMeasured with --quick: the goals are those of the full sizes."
    is_quick = result["sizes"]["rows"] < SIZES.rows
    return f"{tables.table(cells)}\n\n{report.sentences(result)}{quick * is_quick}"
