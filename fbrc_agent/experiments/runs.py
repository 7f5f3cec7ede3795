"""The paper's experiments with training runs: Kostrikov et al. 2021, figures 2 and 4, section 4.3.

Each is a grid of settings x tasks x seeds, sized by gin's `grid`. A setting means the same in all
of them: with the same `grid.runs_dir` they share their runs.
"""

import dataclasses
import itertools
from collections.abc import Mapping, Sequence
from typing import Any, Callable, Optional

from fbrc_agent.experiments import curves, grid_figures, processes, report, summaries
from fbrc_agent.experiments.grid import Setting, Sizes, make_runs, make_sizes
from fbrc_agent.experiments.grid_figures import Cell, Panel
from fbrc_agent.experiments.summaries import LAST, curve_numbers, text, what_happened
from fbrc_agent.utils import tables

_Tasks = dict[str, Optional[str]]
# The columns of a table by their heads: each makes the text of a cell's seeds.
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
    return {"behavior": Setting(*names, curves.GRAY, bindings)}


MIXTURE = _behavior("mixture")
_GAUSSIAN = _behavior("gaussian", "MixtureBehaviorNetwork.num_components = 1")
_JOINT = _behavior("joint", "MixtureBehaviorNetwork.joint = True")


def _setting(
    name: str, label: str, color: str, *bindings: str, behavior: Mapping[str, Setting] = MIXTURE
) -> Setting:
    return Setting(name, label, "fbrc.gin", color, bindings, behavior)


_WEIGHT, _REGULARIZATION = "FbrcAgent.gradient_penalty_weight", "FbrcAgent.regularization"
# gin/fbrc.gin as it is.
FBRC = _setting("fbrc", "F-BRC (λ = 0.1)", curves.BLUE)
LAMBDA_0 = _setting("lambda-0", "λ = 0", curves.ORANGE, f"{_WEIGHT} = 0.0")
LAMBDA_1 = _setting("lambda-1", "λ = 1", curves.GREEN, f"{_WEIGHT} = 1.0")
GRADIENT_PENALTY = _setting(
    *("gradient-penalty", "gradient penalty, no offset", curves.ORANGE),
    f"{_REGULARIZATION} = 'gradient_penalty'",
)
FISHER = _setting(
    *("fisher", "Fisher divergence, no offset", curves.GREEN),
    f"{_REGULARIZATION} = 'fisher'",
)
GAUSSIAN = _setting("gaussian", "one normal per dimension", curves.ORANGE, behavior=_GAUSSIAN)
JOINT = _setting("joint", "joint mixture of 5", curves.GREEN, behavior=_JOINT)

_NORMS = {
    "offset_gradient_norm": r"$\|\nabla_a O\|$",
    "behavior_gradient_norm": r"$\|\nabla_a \log\mu\|$",
}


def _mean(name: str) -> Callable[[Cell], str]:
    return lambda cell: text(outcome.numbers[name] for outcome in cell)


_COLUMNS: _Columns = {
    "last score": _mean("last_score"),
    "each seed": lambda cell: ", ".join(tables.number(o.numbers["last_score"]) for o in cell),
    f"mean of the last {LAST}": _mean("mean_of_last_scores"),
    "what happened": what_happened,
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

    def column(name: str, number: str) -> Callable[[Cell], str]:
        return lambda cell: text((curve_numbers(o.log, [name])[name][number] for o in cell), 2)

    return _run(
        "norms",
        "Action gradients of offset and behavior policy, with and without penalty (figure 4)",
        (LAMBDA_0, FBRC._replace(label="λ = 0.1")),
        *(root_dir, quick),
        panels=[grid_figures.numbers("", "mean norm, 1 / unit of action", _NORMS, log_scale=True)],
        columns={
            "‖∇O‖ at the end": column("offset_gradient_norm", "mean_of_last"),
            "largest ‖∇O‖": column("offset_gradient_norm", "largest"),
            "‖∇ log μ‖ at the end": column("behavior_gradient_norm", "mean_of_last"),
            "largest ‖∇ log μ‖": column("behavior_gradient_norm", "largest"),
            "what happened": what_happened,
        },
        explanation="Norms of gradients in the action (1 / unit of action), means over one batch "
        "of the data's states with the policy's actions; 'at the end' is the mean of the last "
        f"{LAST} lines of the log.",
        extra=lambda cell: {"gradient_norms": [curve_numbers(o.log, list(_NORMS)) for o in cell]},
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

    def likelihoods(cell: Cell) -> list[Optional[float]]:
        return [outcome.pretrained["behavior"].mean_of_last("log_prob") for outcome in cell]

    fit = grid_figures.numbers(
        *(": fit of the behavior policy", "log-likelihood, nats per action", {"log_prob": ""}),
        stage="behavior",
    )
    return _run(
        "density",
        "Behavior policies: mixture per dimension, one normal, joint mixture (section 4.3)",
        (FBRC._replace(label="mixture of 5 per dimension"), GAUSSIAN, JOINT),
        *(root_dir, quick),
        # With the one action dimension of the pendulum, the two mixtures are the same.
        tasks=_HOPPER if quick else _MEDIUM_EXPERT,
        panels=[grid_figures.scores_beside_pretrained, fit],
        columns={
            "log-likelihood": lambda cell: text(likelihoods(cell), digits=2),
            "score of the behavior policy": _mean("pretrained_score"),
            **_COLUMNS,
        },
        explanation="The log-likelihood is that of one batch of the data that the behavior policy "
        "was fitted to, none held out, in nats per action; its score is that of its samples.",
        extra=lambda cell: {"log_likelihood": summaries.mean_and_std(likelihoods(cell))},
    )


def _run(
    name: str,
    title: str,
    settings: Sequence[Setting],
    root_dir: str,
    quick: bool,
    tasks: Optional[_Tasks] = None,
    panels: Sequence[Panel] = (grid_figures.scores,),
    columns: _Columns = _COLUMNS,
    explanation: str = "",
    extra: Callable[[Cell], dict[str, Any]] = lambda cell: {},
) -> report.Report:
    """Runs a grid and reports it in a table of a row for each task and setting, and a figure."""
    sizes = make_sizes(root_dir, quick, tasks or (_PENDULUM if quick else _TASKS))
    runs = make_runs(settings, sizes)
    processes.run_all(runs, sizes.num_jobs)
    grouped = itertools.groupby(map(summaries.read, runs), lambda o: (o.run.task, o.run.setting))
    cells = [list(outcomes) for _, outcomes in grouped]
    data = {cell[0].run.task: summaries.data_of(cell[0]) for cell in cells}
    rows = [["task", "setting", *columns]]
    rows += [
        [cell[0].run.task, cell[0].run.setting.label, *(make(cell) for make in columns.values())]
        for cell in cells
    ]
    table = tables.table(rows, markdown=True)
    paragraphs = [_describe(sizes, data), table, explanation, _HAPPENED]
    return report.Report(
        name=name,
        title=title,
        numbers={
            "sizes": dataclasses.asdict(sizes),
            "data": data,
            "cells": [{**summaries.cell_numbers(cell), **extra(cell)} for cell in cells],
        },
        figure=grid_figures.draw(cells, title, panels),
        text="\n\n".join(filter(None, paragraphs)),
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
