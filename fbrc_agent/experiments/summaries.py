"""Results of the runs of a grid: scores, logged numbers, collapse; as numbers and as cells."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple, Optional

import numpy as np

from fbrc_agent.environments import tasks
from fbrc_agent.experiments import curves
from fbrc_agent.experiments.curves import LoggedRun
from fbrc_agent.experiments.grid import Run
from fbrc_agent.utils import tables

# The last few evaluations of a run, or lines of its log, of which a mean is taken.
LAST = 5
_SCORE = "normalized_score"


class Outcome(NamedTuple):
    """A run of a grid that is done.

    Attributes:
      run: The run.
      log: What it logged within its updates.
      pretrained: What the runs logged whose networks it was given, by names of algorithms.
      numbers: What a report keeps of it, see `read`.
    """

    run: Run
    log: LoggedRun
    pretrained: Mapping[str, LoggedRun]
    numbers: dict[str, Any]


def read(run: Run) -> Outcome:
    """Reads a run that is done.

    Its numbers are `seed` and `directory`; `evaluations`, their steps and normalized scores;
    `last_score`, and `mean_of_last_scores`, that of the last `LAST`; `nan_step`, at which it met
    NaN or infinity, and `critic_diverged_at`, the step at which |Q| first exceeded any return;
    `pretrained_score`, that of the policy that it was given; and `collapsed`, whether its mean of
    last scores is below half of that. What is not known is None.
    """
    log = curves.read(run.root_dir, run.steps)
    pretrained = {name: curves.read(taken.root_dir) for name, taken in run.pretrained.items()}
    steps, scores = log.curve(_SCORE)
    mean = log.mean_of_last(_SCORE, LAST)
    given = next((taken.mean_of_last(_SCORE) for taken in pretrained.values()), None)
    has_collapsed = mean is not None and given is not None and mean < given - abs(given) / 2
    numbers = {
        "seed": run.seed,
        "directory": run.root_dir,
        "evaluations": {"steps": steps.astype(int).tolist(), "scores": _finite(scores)},
        "last_score": log.mean_of_last(_SCORE),
        "mean_of_last_scores": mean,
        "nan_step": log.event_step("not_finite"),
        "critic_diverged_at": log.event_step("diverged"),
        "collapsed": has_collapsed,
        "pretrained_score": given,
    }
    return Outcome(run, log, pretrained, numbers)


def cell_numbers(outcomes: Sequence[Outcome]) -> dict[str, Any]:
    """Returns the numbers of the seeds of a setting on a task."""
    run, names = outcomes[0].run, ("last_score", "mean_of_last_scores", "pretrained_score")
    return {
        "task": run.task,
        "setting": run.setting.name,
        "label": run.setting.label,
        "bindings": run.setting.all_bindings,
        "runs": [outcome.numbers for outcome in outcomes],
        **{name: mean_and_std(outcome.numbers[name] for outcome in outcomes) for name in names},
    }


def curve_numbers(log: LoggedRun, names: Sequence[str]) -> dict[str, Any]:
    """Returns curves of logged numbers, each with the mean of its end and its largest value."""
    numbers: dict[str, Any] = {}
    for name in names:
        steps, values = log.curve(name)
        known = values[np.isfinite(values)]
        numbers["steps"] = steps.astype(int).tolist()
        numbers[name] = {
            "values": _finite(values),
            "mean_of_last": log.mean_of_last(name, LAST),
            "largest": float(known.max()) if len(known) else None,
        }
    return numbers


def data_of(outcome: Outcome) -> dict[str, Any]:
    """Returns the description of a run's data, with its mean normalized score."""
    described, task = outcome.log.identity["data"], tasks.get_task(outcome.run.task)
    mean = described["return_mean"]
    score = None if mean is None else task.normalized_score(mean)
    return {**described, "score_mean": None if score is None else float(score)}


def mean_and_std(values: Iterable[Optional[float]]) -> dict[str, Any]:
    """Returns mean, standard deviation (of a sample: n - 1) and number of what is known."""
    known = [value for value in values if value is not None and np.isfinite(value)]
    return {
        "mean": float(np.mean(known)) if known else None,
        "std": float(np.std(known, ddof=1)) if len(known) > 1 else None,
        "n": len(known),
    }


def what_happened(outcomes: Sequence[Outcome]) -> str:
    """Returns NaN, divergence and collapse of the seeds of a setting; '-' for none."""
    found = []
    for numbers in (outcome.numbers for outcome in outcomes):
        for text, step in (
            ("NaN at step {:,}", numbers["nan_step"]),
            ("critic diverged by step {:,}", numbers["critic_diverged_at"]),
            ("collapsed", numbers["collapsed"] or None),
        ):
            if step is not None:
                found.append(f"{text.format(step)} (seed {numbers['seed']})")
    return ", ".join(found) or "-"


def text(values: Iterable[Optional[float]], digits: int = 1) -> str:
    """Returns 'mean ± std' of the values of seeds."""
    numbers = mean_and_std(values)
    spread = "" if numbers["std"] is None else f" ± {numbers['std']:.{digits}f}"
    return f"{tables.number(numbers['mean'], digits)}{spread}"


def _finite(values: np.ndarray) -> list[Optional[float]]:
    return [float(value) if np.isfinite(value) else None for value in values]
