"""The short tables that commands print."""

from typing import Any, Optional, Union

from fbrc_agent.environments.tasks import Task, get_task
from fbrc_agent.evaluation.rollouts import EvaluationResult
from fbrc_agent.training import trust
from fbrc_agent.utils import tables
from fbrc_agent.utils.tables import number


def table(result: dict[str, Any]) -> str:
    """Returns the table of a run, from the content of its result.json: data first, then stages.

    Without reference scores there is no column of normalized ones.
    """
    task = get_task(result["task"], result.get("reference_scores"))
    data = result["data"]
    rows = [
        ["", "return", "(sd)", "normalized", "updates/s"],
        ["data", *_scores({**data, "normalized_score": score(task, data["return_mean"])}), "-"],
    ]
    for stage in result["stages"].values():
        rows.append([stage["label"], *_scores(stage), number(stage["updates_per_second"])])
        if "average_return_mean" in stage:
            rows.append([f"{stage['label']}, average", *_scores(stage, "average_"), "-"])
    if task.reference_scores is None:
        rows = [[*row[:3], row[4]] for row in rows]
    name = "" if task.id is None else f"{task.id}, "
    lines = [
        f"{name}{data['source']}: {data['transitions']} transitions, "
        f"{data['episodes']} episodes, seed {result['seed']}",
        tables.table(rows, align="lr"),
        f"policy: {result['policy']}",
    ]
    if task.id is not None and task.environment is None:
        lines.append(
            f"not evaluated: no environment here is known to be that of {task.id}; give --task the "
            "id of one of your own, with --data for the data."
        )
    warning = trust.sentence(list(result["stages"].values())[-1].get("doubts", []))
    if warning is not None:
        lines.append(f"warning: {warning}")
    for name, entry in (("best:  ", "best_policy"), ("average:", "average_policy")):
        if result.get(entry):
            lines.append(f"{name} {result[entry]}")
    return "\n".join(lines)


def evaluation_table(task: Task, result: EvaluationResult) -> str:
    """Returns one line an episode, and the mean."""
    rows = [["episode", "steps", "return", "normalized"]]
    for i, (value, length) in enumerate(zip(result.returns, result.lengths)):
        rows.append([str(i), str(length), number(value), number(score(task, value))])
    mean = result.return_mean
    rows.append(["mean", f"{result.lengths.mean():.0f}", number(mean), number(score(task, mean))])
    if task.reference_scores is None:
        rows = [row[:3] for row in rows]
    return tables.table(rows, align="r")


def score(task: Task, value: Optional[float]) -> Optional[float]:
    """Returns the normalized score of a return; None if it, or the task's scale, is not known."""
    if value is None or task.reference_scores is None:
        return None
    return float(task.normalized_score(value))


def _scores(stage: dict[str, Any], prefix: str = "") -> list[str]:
    mean, std = stage[f"{prefix}return_mean"], stage[f"{prefix}return_std"]
    return [number(mean), _bracket(std), number(stage[f"{prefix}normalized_score"])]


def _bracket(value: Union[float, str, None]) -> str:
    return "" if value is None else f"({number(value)})"
