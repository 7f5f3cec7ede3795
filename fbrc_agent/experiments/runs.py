"""The paper's experiments with training runs: Kostrikov et al. 2021, figures 2 and 4, section 4.3.

Each is a grid of settings x tasks x seeds, sized by gin's `grid`. A setting means the same in all
of them: with the same `grid.runs_dir` they share their runs.
"""

import dataclasses
import functools
import re
import shlex
from collections.abc import Sequence
from typing import Any, Callable, Optional

import gin
from matplotlib.figure import Figure

from fbrc_agent.experiments import curves, grid_figures, report, summaries
from fbrc_agent.experiments.grid import Pretraining, Setting, Sizes, grid, run_grid
from fbrc_agent.experiments.summaries import Groups, Outcome, each, text
from fbrc_agent.utils import tables

_Tasks = dict[str, Optional[str]]

_ROBOTS = ("hopper", "halfcheetah", "walker2d")
_TASKS: _Tasks = {
    f"{robot}-{level}-v2": None for level in ("medium", "expert") for robot in _ROBOTS
}
_MEDIUM_EXPERT: _Tasks = {f"{robot}-medium-expert-v2": None for robot in _ROBOTS}
_PENDULUM: _Tasks = {"Pendulum-v1": "embedded:pendulum-medium-replay"}
_HOPPER: _Tasks = {"Hopper-v4": "embedded:hopper-medium-replay"}


def _behavior(name: str, *bindings: str) -> tuple[Pretraining, ...]:
    return (Pretraining("behavior", f"behavior-{name}", "behavior.gin", bindings),)


MIXTURE = _behavior("mixture")
_GAUSSIAN = _behavior("gaussian", "MixtureBehaviorNetwork.num_components = 1")
_JOINT = _behavior("joint", "MixtureBehaviorNetwork.joint = True")


def _setting(
    name: str, label: str, color: str, *bindings: str, behavior: tuple[Pretraining, ...] = MIXTURE
) -> Setting:
    return Setting(name, label, "fbrc.gin", bindings, behavior, color)


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
    return _run("lambda", title, settings, root_dir, quick, grid_figures.scores, _score_table)


def run_norms(root_dir: str, quick: bool) -> report.Report:
    """Figure 4, left: ||grad_a O|| and ||grad_a log mu|| with and without the penalty.

    Both are means over a batch of the data's states with the policy's actions. Arguments, result
    and exceptions are those of `run_lambda`, and so are the runs, λ = 0 and 0.1.
    """
    title = "Action gradients of offset and behavior policy, with and without penalty (figure 4)"
    settings = (LAMBDA_0, FBRC._replace(label="λ = 0.1"))
    draw = functools.partial(
        grid_figures.numbers, unit="mean norm, 1 / unit of action", symbols=_NORMS
    )

    def norms(outcomes: Sequence[Outcome]) -> dict[str, Any]:
        return {"gradient_norms": [summaries.curve_numbers(o, list(_NORMS)) for o in outcomes]}

    return _run("norms", title, settings, root_dir, quick, draw, _norms_table, extra=norms)


def run_ablation(root_dir: str, quick: bool) -> report.Report:
    """Figure 4, center and right: F-BRC against its two parts without the offset.

    Arguments, result and exceptions are those of `run_lambda`.
    """
    title = "F-BRC against gradient penalty and Fisher divergence without the offset (figure 4)"
    settings = (FBRC, GRADIENT_PENALTY, FISHER)
    return _run("ablation", title, settings, root_dir, quick, grid_figures.scores, _score_table)


def run_density(root_dir: str, quick: bool) -> report.Report:
    """Section 4.3: F-BRC with mu as a mixture per action dimension, one normal, a joint mixture.

    Arguments, result and exceptions are those of `run_lambda`.
    """
    title = "Behavior policies: mixture per dimension, one normal, joint mixture (section 4.3)"
    settings = (FBRC._replace(label="mixture of 5 per dimension"), GAUSSIAN, JOINT)
    # With the one action dimension of the pendulum, the two mixtures are the same.
    tasks = _HOPPER if quick else _MEDIUM_EXPERT
    draw = functools.partial(
        grid_figures.scores_and_pretraining,
        stage="behavior",
        name="log_prob",
        panel="fit of the behavior policy",
        unit="log-likelihood, nats per action",
    )

    def likelihood(outcomes: Sequence[Outcome]) -> dict[str, Any]:
        return {"log_likelihood": summaries.mean_and_std(_likelihoods(outcomes))}

    return _run(
        *("density", title, settings, root_dir, quick, draw, _density_table, likelihood, tasks)
    )


def _likelihoods(outcomes: Sequence[Outcome]) -> list[Optional[float]]:
    """Returns the log-likelihood of each seed's monitor batch at the end, nats per action."""
    return [outcome.pretrained_number("log_prob") for outcome in outcomes]


def _run(
    name: str,
    title: str,
    settings: Sequence[Setting],
    root_dir: str,
    quick: bool,
    draw: Callable[[Groups, str], Figure],
    make_table: Callable[[Groups], str],
    extra: Callable[[Sequence[Outcome]], dict[str, Any]] = lambda outcomes: {},
    tasks: Optional[_Tasks] = None,
) -> report.Report:
    default_tasks = tasks or (_PENDULUM if quick else _TASKS)
    sizes = grid(root_dir=root_dir, quick=quick, default_tasks=default_tasks)
    groups = summaries.group(summaries.read(cell) for cell in run_grid(settings, sizes))
    data = {task: summaries.data_of(_first(by_setting)) for task, by_setting in groups.items()}
    numbers = {
        "sizes": dataclasses.asdict(sizes),
        "data": data,
        "cells": [{**summaries.cell_numbers(o), **extra(o)} for o in _rows(groups)],
    }
    return report.Report(
        name=name,
        title=title,
        command=_command(name, quick, root_dir),
        numbers=numbers,
        figure=draw(groups, title),
        text="\n\n".join([_describe(sizes), _describe_data(sizes, data), make_table(groups)]),
    )


def _command(name: str, quick: bool, root_dir: str) -> str:
    """Returns the command with its directory and gin bindings."""
    lines = gin.config_str(max_line_length=100_000).splitlines()
    bindings = [_quote(line) for line in lines if line.startswith("grid.")]
    words = [report.command(name, quick), "--root_dir", shlex.quote(root_dir)]
    return " ".join(words + (["--gin_bindings", *bindings] if bindings else []))


def _quote(binding: str) -> str:
    """Returns a binding as one word of a shell; it has single quotes itself, as Python's texts."""
    return shlex.quote(binding) if re.search(r'["$`\\!]', binding) else f'"{binding}"'


def _describe(sizes: Sizes) -> str:
    sentences = [
        f"Each behavior policy was trained with {sizes.pretraining_steps:,} updates and each agent "
        f"with {sizes.steps:,}, {_count(sizes.seeds, 'seed')}; evaluations of "
        f"{_count(sizes.num_eval_episodes, 'episode')} every {sizes.eval_interval:,} updates.",
        "Scores are normalized (0: a random policy, 100: an expert); ± is the standard deviation "
        "over seeds (n - 1).",
    ]
    if sizes.bindings:
        sentences.append(f"Every run has `{'`, `'.join(sizes.bindings)}`.")
    return " ".join(sentences)


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" + ("s" if number > 1 else "")


def _describe_data(sizes: Sizes, described: dict[str, dict[str, Any]]) -> str:
    lines = []
    for task, data in described.items():
        kind = "the task's own file"
        if sizes.tasks[task] not in (None, task):
            kind = "not the task's D4RL file, whose published scores do not compare"
        score = data["score_mean"]
        mean = "no complete episode" if score is None else f"mean score {score:.1f}"
        lines.append(
            f"- {task}: {data['source']}, {data['transitions']:,} transitions, "
            f"{data['episodes']:,} episodes, {mean}; {kind}."
        )
    return "\n".join(lines)


def _first(by_setting: dict[str, list[Outcome]]) -> list[Outcome]:
    return next(iter(by_setting.values()))


def _rows(groups: Groups) -> list[list[Outcome]]:
    return [outcomes for by_setting in groups.values() for outcomes in by_setting.values()]


_SCORE_HEAD = ("last score", "each seed", f"mean of the last {summaries.LAST}", "what happened")
_HAPPENED = (
    "A run that ended in NaN counts with its evaluations before. The critic diverged: its mean |Q| "
    "exceeded any return that rewards and discount allow. Collapsed: the mean of the last "
    f"{summaries.LAST} scores is below half of the score of the run's behavior policy."
)


def _table(
    groups: Groups,
    head: Sequence[str],
    columns: Callable[[list[Outcome]], Sequence[str]],
    explanation: str = "",
) -> str:
    """Returns a table with a row for each task and setting, and what its columns mean."""
    rows = [["task", "setting", *head]]
    for outcomes in _rows(groups):
        rows.append([outcomes[0].task, outcomes[0].setting.label, *columns(outcomes)])
    paragraphs = [tables.table(rows, markdown=True), explanation, _HAPPENED]
    return "\n\n".join(filter(None, paragraphs))


def _score_columns(outcomes: Sequence[Outcome]) -> list[str]:
    last = [outcome.last_score for outcome in outcomes]
    means = [outcome.mean_of_last_scores for outcome in outcomes]
    return [text(last), each(last), text(means), summaries.what_happened(outcomes)]


def _score_table(groups: Groups) -> str:
    return _table(groups, _SCORE_HEAD, _score_columns)


def _norms_table(groups: Groups) -> str:
    def columns(outcomes: list[Outcome]) -> list[str]:
        norms = [summaries.curve_numbers(outcome, list(_NORMS)) for outcome in outcomes]
        cells = [
            text((n[key][number] for n in norms), digits=2)
            for key in _NORMS
            for number in ("mean_of_last", "largest")
        ]
        return [*cells, summaries.what_happened(outcomes)]

    return _table(
        groups,
        *(
            ("‖∇O‖ at the end", "largest", "‖∇ log μ‖ at the end", "largest", "what happened"),
            columns,
            "Norms of gradients in the action (1 / unit of action), means over one batch of the "
            "data's states with the policy's actions; 'at the end' is the mean of the last "
            f"{summaries.LAST} lines of the log.",
        ),
    )


def _density_table(groups: Groups) -> str:
    def columns(outcomes: list[Outcome]) -> list[str]:
        likelihood = text(_likelihoods(outcomes), digits=2)
        score = text(outcome.pretrained_score for outcome in outcomes)
        return [likelihood, score, *_score_columns(outcomes)]

    return _table(
        groups,
        *(
            ("log-likelihood", "score of the behavior policy", *_SCORE_HEAD),
            columns,
            "The log-likelihood is that of one batch of the data that the behavior policy was "
            "fitted to, none held out, in nats per action; its score is that of its samples.",
        ),
    )
