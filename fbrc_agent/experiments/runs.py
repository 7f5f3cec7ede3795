"""The paper's experiments with training runs: Kostrikov et al. 2021, figures 2 and 4, section 4.3.

Each is a grid of settings x tasks x seeds, sized by gin's `grid`. A setting means the same in all
of them: with the same `grid.runs_dir` they share their runs.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, Callable, Optional

from fbrc_agent.experiments import figures, processes, report, summaries
from fbrc_agent.experiments.figures import Panel
from fbrc_agent.experiments.grid import Setting, Sizes, make_runs, make_sizes
from fbrc_agent.experiments.summaries import LAST, Cell, Outcome
from fbrc_agent.utils import tables

_Tasks = dict[str, Optional[str]]
# The columns of a table by their heads: each makes the text of a cell.
_Columns = Mapping[str, Callable[[Cell], str]]

_ROBOTS = ("hopper", "halfcheetah", "walker2d")
_TASKS: _Tasks = {
    f"{robot}-{level}-v2": None for level in ("medium", "expert") for robot in _ROBOTS
}
_MEDIUM_EXPERT: _Tasks = {f"{robot}-medium-expert-v2": None for robot in _ROBOTS}
_PENDULUM: _Tasks = {"Pendulum-v1": "embedded:pendulum-medium-replay"}
_HOPPER: _Tasks = {"Hopper-v4": "embedded:hopper-medium-replay"}


def _behavior(name: str, *bindings: str) -> dict[str, Setting]:
    names = f"behavior-{name}", "behavior policy", "behavior.gin"
    return {"behavior": Setting(*names, figures.GRAY, bindings)}


MIXTURE = _behavior("mixture")
_GAUSSIAN = _behavior("gaussian", "MixtureBehaviorNetwork.num_components = 1")
_JOINT = _behavior("joint", "MixtureBehaviorNetwork.joint = True")


def _setting(
    name: str, label: str, color: str, *bindings: str, behavior: Mapping[str, Setting] = MIXTURE
) -> Setting:
    return Setting(name, label, "fbrc.gin", color, bindings, behavior)


_WEIGHT, _REGULARIZATION = "FbrcAgent.gradient_penalty_weight", "FbrcAgent.regularization"
# gin/fbrc.gin as it is.
FBRC = _setting("fbrc", "F-BRC (λ = 0.1)", figures.BLUE)
LAMBDA_0 = _setting("lambda-0", "λ = 0", figures.ORANGE, f"{_WEIGHT} = 0.0")
LAMBDA_1 = _setting("lambda-1", "λ = 1", figures.GREEN, f"{_WEIGHT} = 1.0")
GRADIENT_PENALTY = _setting(
    *("gradient-penalty", "gradient penalty, no offset", figures.ORANGE),
    f"{_REGULARIZATION} = 'gradient_penalty'",
)
FISHER = _setting(
    *("fisher", "Fisher divergence, no offset", figures.GREEN),
    f"{_REGULARIZATION} = 'fisher'",
)
GAUSSIAN = _setting("gaussian", "one normal per dimension", figures.ORANGE, behavior=_GAUSSIAN)
JOINT = _setting("joint", "joint mixture of 5", figures.GREEN, behavior=_JOINT)

_NORMS = {
    "offset_gradient_norm": r"$\|\nabla_a O\|$, ",
    "behavior_gradient_norm": r"$\|\nabla_a \log\mu\|$, ",
}


def _text(name: str, digits: int = 1) -> Callable[[Cell], str]:
    return lambda cell: cell.text(name, digits)


_COLUMNS: _Columns = {
    "last score": _text("last_score"),
    "each seed": lambda cell: ", ".join(map(tables.number, cell.values("last_score"))),
    f"mean of the last {LAST}": _text("mean_of_last_scores"),
    "what happened": Cell.what_happened,
}
_HAPPENED = (
    "A run that ended in NaN counts with its evaluations before. The critic diverged: its mean |Q| "
    "exceeded any return that rewards and discount allow. Collapsed: the mean of the last "
    f"{LAST} scores is below half of the score of the run's behavior policy."
)


def run_lambda(root_dir: str, quick: bool) -> report.Report:
    """Figure 2: the scores of F-BRC with λ = 0, 0.1 and 1.

    Args:
      root_dir: Directory of the experiment; its runs are in `runs`, unless gin's `grid` has another
        place.
      quick: Whether to take the quick sizes of `grid` instead of the paper's.

    Returns:
      The report.

    Raises:
      InputError: If gin's `grid` is not usable, or a run failed.
      signals.Interruption: If a signal asked for it; the same call continues.
    """
    title = "Scores of F-BRC with the penalty's weight λ = 0, 0.1 and 1 (figure 2)"
    settings = (LAMBDA_0, FBRC._replace(label="λ = 0.1"), LAMBDA_1)
    return _run("lambda", title, settings, root_dir, quick)


def run_norms(root_dir: str, quick: bool) -> report.Report:
    """Figure 4, left: ||grad_a O|| and ||grad_a log mu|| with and without the penalty.

    Both are means over a batch of the data's states with the policy's actions. Arguments, result
    and exceptions are those of `run_lambda`, and so are the runs, λ = 0 and 0.1.
    """

    def numbers(outcome: Outcome) -> dict[str, Optional[float]]:
        ends = {f"{name}_at_end": outcome.log.mean_of_last(name, LAST) for name in _NORMS}
        return {**ends, **{f"largest_{name}": outcome.log.largest(name) for name in _NORMS}}

    return _run(
        "norms",
        "Action gradients of offset and behavior policy, with and without penalty (figure 4)",
        (LAMBDA_0, FBRC._replace(label="λ = 0.1")),
        *(root_dir, quick),
        panels=[figures.numbers("", "mean norm, 1 / unit of action", _NORMS, log_scale=True)],
        columns={
            "‖∇O‖ at the end": _text("offset_gradient_norm_at_end", 2),
            "largest ‖∇O‖": _text("largest_offset_gradient_norm", 2),
            "‖∇ log μ‖ at the end": _text("behavior_gradient_norm_at_end", 2),
            "largest ‖∇ log μ‖": _text("largest_behavior_gradient_norm", 2),
            "what happened": Cell.what_happened,
        },
        explanation="Norms of gradients in the action (1 / unit of action), means over one batch "
        "of the data's states with the policy's actions; 'at the end' is the mean of the last "
        f"{LAST} lines of the log.",
        numbers=numbers,
        logged=tuple(_NORMS),
    )


def run_ablation(root_dir: str, quick: bool) -> report.Report:
    """Figure 4, center and right: F-BRC against its two parts without the offset.

    Arguments, result and exceptions are those of `run_lambda`.
    """
    title = "F-BRC against gradient penalty and Fisher divergence without the offset (figure 4)"
    return _run("ablation", title, (FBRC, GRADIENT_PENALTY, FISHER), root_dir, quick)


def run_density(root_dir: str, quick: bool) -> report.Report:
    """Section 4.3: F-BRC with mu as a mixture per action dimension, one normal, a joint mixture.

    Arguments, result and exceptions are those of `run_lambda`.
    """
    unit = "log-likelihood, nats per action"
    fit = figures.numbers(": behavior policy", unit, {"log_prob": ""}, stage="behavior")
    return _run(
        "density",
        "Behavior policies: mixture per dimension, one normal, joint mixture (section 4.3)",
        (FBRC._replace(label="mixture of 5 per dimension"), GAUSSIAN, JOINT),
        *(root_dir, quick),
        # With the one action dimension of the pendulum, the two mixtures are the same.
        tasks=_HOPPER if quick else _MEDIUM_EXPERT,
        panels=[figures.scores, fit],
        columns={
            "log-likelihood": _text("log_likelihood", 2),
            "score of the behavior policy": _text("pretrained_score"),
            **_COLUMNS,
        },
        explanation="The log-likelihood is that of one batch of the data that the behavior policy "
        "was fitted to, none held out, in nats per action; its score is that of its samples.",
        numbers=lambda o: {"log_likelihood": o.pretrained["behavior"].mean_of_last("log_prob")},
    )


def _run(
    name: str,
    title: str,
    settings: Sequence[Setting],
    root_dir: str,
    quick: bool,
    tasks: Optional[_Tasks] = None,
    panels: Sequence[Panel] = (figures.scores,),
    columns: _Columns = _COLUMNS,
    explanation: str = "",
    numbers: Callable[[Outcome], dict[str, Optional[float]]] = lambda outcome: {},
    logged: Sequence[str] = (summaries.SCORE,),
) -> report.Report:
    """Runs a grid and reports it in a table of a row for each task and setting, and a figure."""
    sizes = make_sizes(root_dir, quick, tasks or (_PENDULUM if quick else _TASKS))
    runs = make_runs(settings, sizes)
    processes.run_all(runs, sizes.num_jobs)
    cells = summaries.read_cells(runs)
    for outcome in (outcome for cell in cells for outcome in cell.outcomes):
        outcome.numbers.update(numbers(outcome))
    data = {cell.task: cell.data() for cell in cells}
    rows = [[c.task, c.setting.label, *(make(c) for make in columns.values())] for c in cells]
    table = tables.table([["task", "setting", *columns], *rows], markdown=True)
    return report.Report(
        name=name,
        title=title,
        numbers={
            "sizes": dataclasses.asdict(sizes),
            "data": data,
            "cells": [cell.to_json(logged) for cell in cells],
        },
        figure=figures.draw_grid(cells, title, panels),
        text="\n\n".join(filter(None, [_describe(sizes, data), table, explanation, _HAPPENED])),
    )


def _describe(sizes: Sizes, described: Mapping[str, Mapping[str, Any]]) -> str:
    """Returns the sizes and the data of a grid in sentences."""
    every = f" Every run has `{'`, `'.join(sizes.bindings)}`." if sizes.bindings else ""
    text = (
        f"Each behavior policy was trained with {sizes.pretraining_steps:,} updates and each agent "
        f"with {sizes.steps:,}; seeds: {sizes.seeds}; episodes of an evaluation: "
        f"{sizes.num_eval_episodes}, every {sizes.eval_interval:,} updates. Scores are normalized "
        "(0: a random policy, 100: an expert); ± is the standard deviation over seeds (n - 1)."
        f"{every}\n"
    )
    for task, data in described.items():
        kind = "the task's own file"
        if sizes.tasks[task] not in (None, task):
            kind = "not the task's D4RL file, whose published scores do not compare"
        text += (
            f"\n- {task}: {data['source']}, {data['transitions']:,} transitions, "
            f"{data['episodes']:,} episodes, mean score {tables.number(data['score_mean'])}; "
            f"{kind}."
        )
    return text
