"""The short tables that commands print."""

from typing import Any, Optional, Union

from fbrc_agent.environments.tasks import Task, get_task
from fbrc_agent.evaluation.rollouts import EvaluationResult
from fbrc_agent.utils import tables
from fbrc_agent.utils.tables import number


def table(result: dict[str, Any]) -> str:
    """Returns the table of a run, from the content of its result.json: data first, then stages."""
    task = get_task(result["task"])
    data = result["data"]
    mean = data["return_mean"]
    rows = [
        ["", "return", "(sd)", "normalized", "updates/s"],
        ["data", number(mean), _bracket(data["return_std"]), number(score(task, mean)), "-"],
    ]
    for stage in result["stages"].values():
        rows.append(
            [
                stage["label"],
                number(stage["return_mean"]),
                _bracket(stage["return_std"]),
                number(stage["normalized_score"]),
                number(stage["updates_per_second"]),
            ]
        )
    lines = [
        f"{result['task']}, {data['source']}: {data['transitions']} transitions, "
        f"{data['episodes']} episodes, seed {result['seed']}",
        tables.table(rows, align="lr"),
        f"policy: {result['policy']}",
    ]
    if result.get("best_policy"):
        lines.append(f"best:   {result['best_policy']}")
    return "\n".join(lines)


def evaluation_table(task: Task, result: EvaluationResult) -> str:
    """Returns one line an episode, and the mean."""
    rows = [["episode", "steps", "return", "normalized"]]
    for i, (value, length) in enumerate(zip(result.returns, result.lengths)):
        rows.append([str(i), str(length), number(value), number(score(task, value))])
    mean = result.return_mean
    rows.append(["mean", f"{result.lengths.mean():.0f}", number(mean), number(score(task, mean))])
    return tables.table(rows, align="r")


def score(task: Task, value: Optional[float]) -> Optional[float]:
    """Returns the normalized score of a return; None if it, or the task's scale, is not known."""
    if value is None or task.reference_scores is None:
        return None
    return float(task.normalized_score(value))


def _bracket(value: Union[float, str, None]) -> str:
    return "" if value is None else f"({number(value)})"
