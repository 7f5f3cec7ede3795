"""The experiments of training runs: Kostrikov et al. 2021, figures 2 and 4, and one of ours.

Each is a grid of settings x tasks x seeds, sized by gin's `grid`. A setting means the same in all
of them: with the same `grid.runs_dir` they share their runs.
"""

import dataclasses
import re
import shlex
from collections.abc import Sequence
from typing import Any, Callable, Optional

import gin
from matplotlib.figure import Figure

from fbrc_agent.experiments import curves, report, summaries
from fbrc_agent.experiments.grid import Density, Setting, Sizes, grid, run_grid
from fbrc_agent.experiments.summaries import Groups, Outcome, each, text

_Tasks = dict[str, Optional[str]]

_ROBOTS = ("hopper", "halfcheetah", "walker2d")
_TASKS: _Tasks = {
    f"{robot}-{level}-v2": None for level in ("medium", "expert") for robot in _ROBOTS
}
_MEDIUM_EXPERT: _Tasks = {f"{robot}-medium-expert-v2": None for robot in _ROBOTS}
_PENDULUM: _Tasks = {"Pendulum-v1": "embedded:pendulum-medium-replay"}
_HOPPER: _Tasks = {"Hopper-v4": "embedded:hopper-medium-replay"}


def _weight(value: float) -> tuple[str, ...]:
    return (f"FbrcAgent.gradient_penalty_weight = {value}",)


def _regularization(name: str) -> tuple[str, ...]:
    return (f"FbrcAgent.regularization = {name!r}",)


# gin/fbrc.gin as it is.
FBRC = Setting("fbrc", "F-BRC (λ = 0.1)")
LAMBDA_0 = Setting("lambda-0", "λ = 0", _weight(0.0))
LAMBDA_1 = Setting("lambda-1", "λ = 1", _weight(1.0))
GRADIENT_PENALTY = Setting(
    "gradient-penalty", "gradient penalty, no offset", _regularization("gradient_penalty")
)
FISHER = Setting("fisher", "Fisher divergence, no offset", _regularization("fisher"))
SHARED_PASS = Setting("shared-pass", "one critic pass", ("FbrcAgent.share_critic_pass = True",))
_GAUSSIAN = Density("density-gaussian", ("MixtureBehaviorNetwork.num_components = 1",))
_JOINT = Density("density-joint", ("MixtureBehaviorNetwork.joint = True",))
GAUSSIAN = Setting("gaussian", "one normal per dimension", density=_GAUSSIAN)
JOINT = Setting("joint", "joint mixture of 5", density=_JOINT)


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
      interruption.Interruption: If a signal asked for it; the same call continues.
    """
    title = "Scores of F-BRC with the penalty's weight λ = 0, 0.1 and 1 (figure 2)"
    settings = (LAMBDA_0, FBRC._replace(label="λ = 0.1"), LAMBDA_1)
    return _run("lambda", title, settings, root_dir, quick, curves.scores, _score_table)


def run_norms(root_dir: str, quick: bool) -> report.Report:
    """Figure 4, left: ||grad_a O|| and ||grad_a log mu|| with and without the penalty.

    Both are means over a batch of the data's states with the policy's actions. Arguments, result
    and exceptions are those of `run_lambda`, and so are the runs, λ = 0 and 0.1.
    """
    title = "Action gradients of offset and behavior density, with and without penalty (figure 4)"
    settings = (LAMBDA_0, FBRC._replace(label="λ = 0.1"))
    return _run(
        *("norms", title, settings, root_dir, quick, curves.gradient_norms, _norms_table),
        extra=lambda outcomes: {
            "gradient_norms": [summaries.gradient_norms(outcome) for outcome in outcomes]
        },
    )


def run_ablation(root_dir: str, quick: bool) -> report.Report:
    """Figure 4, center and right: F-BRC against its two parts without the offset.

    Arguments, result and exceptions are those of `run_lambda`.
    """
    title = "F-BRC against gradient penalty and Fisher divergence without the offset (figure 4)"
    settings = (FBRC, GRADIENT_PENALTY, FISHER)
    return _run("ablation", title, settings, root_dir, quick, curves.scores, _score_table)


def run_density(root_dir: str, quick: bool) -> report.Report:
    """Section 4.3: F-BRC on a mixture per action dimension, one normal, and a joint mixture.

    Arguments, result and exceptions are those of `run_lambda`.
    """
    title = "Behavior densities: mixture per dimension, one normal, joint mixture (section 4.3)"
    settings = (FBRC._replace(label="mixture of 5 per dimension"), GAUSSIAN, JOINT)
    # With the one action dimension of the pendulum, the two mixtures are the same.
    tasks = _HOPPER if quick else _MEDIUM_EXPERT
    return _run(
        *("density", title, settings, root_dir, quick, curves.densities, _density_table),
        tasks=tasks,
    )


def run_sharing(root_dir: str, quick: bool) -> report.Report:
    """Not in the paper: F-BRC with one pass through the critics for penalty and actor's loss.

    What `FbrcAgent.share_critic_pass`, which is faster and another algorithm, does to the scores.
    Arguments, result and exceptions are those of `run_lambda`.
    """
    title = "F-BRC with one pass through the critics for penalty and actor"
    settings = (FBRC._replace(label="F-BRC"), SHARED_PASS)
    return _run("sharing", title, settings, root_dir, quick, curves.scores, _score_table)


def _run(
    name: str,
    title: str,
    settings: Sequence[Setting],
    root_dir: str,
    quick: bool,
    draw: Callable[[Groups, str], Figure],
    make_table: Callable[[Groups], str],
    tasks: Optional[_Tasks] = None,
    extra: Callable[[Sequence[Outcome]], dict[str, Any]] = lambda outcomes: {},
) -> report.Report:
    default_tasks = tasks or (_PENDULUM if quick else _TASKS)
    sizes = grid(root_dir=root_dir, quick=quick, default_tasks=default_tasks)
    groups = summaries.group(summaries.read(cell) for cell in run_grid(settings, sizes))
    numbers = {
        "sizes": dataclasses.asdict(sizes),
        "data": {
            task: summaries.data_of(next(iter(by_setting.values())))
            for task, by_setting in groups.items()
        },
        "cells": [
            {**summaries.cell_numbers(outcomes), **extra(outcomes)}
            for by_setting in groups.values()
            for outcomes in by_setting.values()
        ],
    }
    paragraphs = [_describe(sizes), *_describe_data(sizes, groups), make_table(groups)]
    return report.Report(
        name=name,
        title=title,
        command=_command(name, quick, root_dir),
        numbers=numbers,
        figure=draw(groups, title),
        text="\n\n".join(paragraphs),
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
    density, agent = f"{sizes.behavior_steps:,}", f"{sizes.fbrc_steps:,}"
    seeds = f"{sizes.seeds} seed{'s' if sizes.seeds > 1 else ''}"
    episodes = f"{sizes.num_eval_episodes} episode{'s' if sizes.num_eval_episodes > 1 else ''}"
    sentences = [
        f"Each density was fitted with {density} updates and each agent trained with {agent}, "
        f"{seeds}; evaluations of {episodes} every "
        f"{sizes.eval_interval:,} updates.",
        "Scores are normalized (0: a random policy, 100: an expert); ± is the standard deviation "
        "over seeds (n - 1).",
    ]
    if sizes.bindings:
        sentences.append(f"Every run has `{'`, `'.join(sizes.bindings)}`.")
    return " ".join(sentences)


def _describe_data(sizes: Sizes, groups: Groups) -> list[str]:
    lines = []
    for task, by_setting in groups.items():
        data = summaries.data_of(next(iter(by_setting.values())))
        kind = "the task's own file"
        if sizes.tasks[task] not in (None, task):
            kind = "not the task's D4RL file, whose published scores do not compare"
        score = data["score_mean"]
        mean = "no complete episode" if score is None else f"mean score {score:.1f}"
        lines.append(
            f"- {task}: {data['source']}, {data['transitions']:,} transitions, "
            f"{data['episodes']:,} episodes, {mean}; {kind}."
        )
    return ["\n".join(lines)]


def _rows(groups: Groups) -> list[list[Outcome]]:
    return [outcomes for by_setting in groups.values() for outcomes in by_setting.values()]


_AGENT_HEAD = ("last score", "each seed", f"mean of the last {summaries.LAST}", "what happened")


def _agent_columns(outcomes: Sequence[Outcome]) -> list[str]:
    last = [outcome.last_score for outcome in outcomes]
    means = [outcome.mean_of_last_scores for outcome in outcomes]
    return [
        text(summaries.mean_and_std(last)),
        each(last),
        text(summaries.mean_and_std(means)),
        summaries.what_happened(outcomes),
    ]


_HAPPENED = (
    "A run that ended in NaN counts with its evaluations before. The critic diverged: its mean |Q| "
    "was seen beyond any return that rewards and discount allow. Collapsed: the mean of the last "
    f"{summaries.LAST} scores is below half of the score of the run's behavior density."
)


def _score_table(groups: Groups) -> str:
    rows = [["task", "setting", *_AGENT_HEAD]]
    for outcomes in _rows(groups):
        rows.append(
            [outcomes[0].task, outcomes[0].setting.label, *_agent_columns(outcomes)],
        )
    return "\n\n".join([summaries.table(rows), _HAPPENED])


def _norms_table(groups: Groups) -> str:
    head = ["task", "setting", "‖∇O‖ at the end", "largest", "‖∇ log μ‖ at the end", "largest"]
    rows = [[*head, "what happened"]]
    for outcomes in _rows(groups):
        norms = [summaries.gradient_norms(outcome) for outcome in outcomes]
        columns = [
            text(summaries.mean_and_std([n[key][number] for n in norms]), digits=2)
            for key in ("offset_gradient_norm", "behavior_gradient_norm")
            for number in ("mean_of_last", "largest")
        ]
        rows.append(
            [outcomes[0].task, outcomes[0].setting.label, *columns]
            + [summaries.what_happened(outcomes)]
        )
    explanation = (
        "Norms of gradients in the action (1 / unit of action), means over one batch of the data's "
        f"states with the policy's actions; 'at the end' is the mean of the last {summaries.LAST} "
        "lines of the log."
    )
    return "\n\n".join([summaries.table(rows), explanation, _HAPPENED])


def _density_table(groups: Groups) -> str:
    rows = [["task", "density", "log-likelihood", "score of the density", *_AGENT_HEAD]]
    for outcomes in _rows(groups):
        likelihoods = summaries.mean_and_std([o.log_likelihood for o in outcomes])
        scores = summaries.mean_and_std([o.density_score for o in outcomes])
        rows.append(
            [outcomes[0].task, outcomes[0].setting.label, text(likelihoods, digits=2)]
            + [text(scores), *_agent_columns(outcomes)]
        )
    explanation = (
        "The log-likelihood is that of one batch of the data that the density was fitted to, none "
        "held out, in nats per action; the density's score is that of its samples."
    )
    return "\n\n".join([summaries.table(rows), explanation, _HAPPENED])
