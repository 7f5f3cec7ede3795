"""The short tables that commands print."""

from typing import Any, Optional, Union

from fbrc_agent.environments import d4rl
from fbrc_agent.evaluation.rollouts import EvaluationResult


def table(result: dict[str, Any]) -> str:
    """Returns the table of a run, from the content of its result.json."""
    task = d4rl.get_task(result["task"])
    data, stages = result["data"], result["stages"]
    rows = [
        ("data", data["return_mean"], data["return_std"], _score(task, data["return_mean"]), None)
    ]
    for label, stage in (("behavior policy", "behavior"), ("F-BRC", "fbrc")):
        entry = stages[stage]
        rows.append(
            (
                label,
                entry["return_mean"],
                entry["return_std"],
                entry["normalized_score"],
                entry["updates_per_second"],
            )
        )
    lines = [
        f"{result['task']}, {data['source']}: {data['transitions']} transitions, "
        f"{data['episodes']} episodes, seed {result['seed']}",
        f"{'':16s}{'return':>10s}{'(sd)':>9s}{'normalized':>12s}{'updates/s':>11s}",
    ]
    for label, mean, deviation, score, speed in rows:
        lines.append(
            f"{label:16s}{_number(mean):>10s}{_bracket(deviation):>9s}{_number(score):>12s}"
            f"{_number(speed):>11s}"
        )
    lines.append(f"policy: {result['policy']}")
    if result.get("best_policy"):
        lines.append(f"best:   {result['best_policy']}")
    return "\n".join(lines)


def evaluation_table(task: d4rl.Task, result: EvaluationResult) -> str:
    """Returns one line an episode, and the mean."""
    lines = [f"{'episode':>8s}{'steps':>8s}{'return':>11s}{'normalized':>12s}"]
    for i, (value, length) in enumerate(zip(result.returns, result.lengths)):
        lines.append(f"{i:8d}{length:8d}{value:11.1f}{_number(_score(task, value)):>12s}")
    mean = result.return_mean
    lines.append(
        f"{'mean':>8s}{result.lengths.mean():8.0f}{mean:11.1f}{_number(_score(task, mean)):>12s}"
    )
    return "\n".join(lines)


def _score(task: d4rl.Task, value: Optional[float]) -> Optional[float]:
    if value is None or task.reference_scores is None:
        return None
    return float(task.normalized_score(value))


def _number(value: Union[float, str, None]) -> str:
    # result.json has the texts 'inf' and 'nan' for what is not finite.
    return "-" if value is None else f"{float(value):.1f}"


def _bracket(value: Union[float, str, None]) -> str:
    return "" if value is None else f"({float(value):.1f})"
