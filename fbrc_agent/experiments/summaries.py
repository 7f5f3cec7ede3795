"""Results of the runs of a grid: scores, logged numbers, collapse; as numbers and as cells."""

import dataclasses
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Optional

import numpy as np

from fbrc_agent.environments import tasks
from fbrc_agent.experiments import curves
from fbrc_agent.experiments.grid import Cell, Setting
from fbrc_agent.utils import tables

# The last few evaluations of a run, or lines of its log, of which a mean is taken.
LAST = 5
_SCORE = "normalized_score"


@dataclasses.dataclass(frozen=True)
class Outcome:
    """A run of a grid, within the updates that the grid has.

    Attributes:
      task: Its task.
      setting: Its setting.
      seed: Its seed.
      run: Its numbers.
      pretrained: The runs of the networks that it was given, by the names of their algorithms.
      nan_step: The step at which it met NaN or infinity, or None.
      divergence_step: The step at which its |Q| first exceeded any return, or None.
    """

    task: str
    setting: Setting
    seed: int
    run: curves.LoggedRun
    pretrained: Mapping[str, curves.LoggedRun]
    nan_step: Optional[int]
    divergence_step: Optional[int]

    def curve(self, name: str) -> tuple[np.ndarray, np.ndarray]:
        """Returns the steps [n] and values [n] of a number that its algorithm logged."""
        return self.run.curve(self.run.algorithm, name)

    def pretrained_number(self, name: str) -> Optional[float]:
        """Returns the last value of a number of the networks that it was given, None without."""
        values = (run.last(stage, name) for stage, run in self.pretrained.items())
        return next((value for value in values if value is not None), None)

    @property
    def pretrained_score(self) -> Optional[float]:
        """The normalized score of the policy that it was given."""
        return self.pretrained_number(_SCORE)

    @property
    def last_score(self) -> Optional[float]:
        """The score of the last evaluation."""
        return curves.mean_of_last(self.curve(_SCORE)[1], 1)

    @property
    def mean_of_last_scores(self) -> Optional[float]:
        """The mean of the last `LAST` scores."""
        return curves.mean_of_last(self.curve(_SCORE)[1], LAST)

    @property
    def has_collapsed(self) -> bool:
        """Whether its last scores are, on average, below half of the pretrained policy's score."""
        score, given = self.mean_of_last_scores, self.pretrained_score
        return score is not None and given is not None and score < given - abs(given) / 2

    def numbers(self) -> dict[str, Any]:
        """Returns what a report keeps of it."""
        steps, scores = self.curve(_SCORE)
        return {
            "seed": self.seed,
            "directory": self.run.root_dir,
            "evaluations": {"steps": steps.astype(int).tolist(), "scores": _finite(scores)},
            "last_score": self.last_score,
            "mean_of_last_scores": self.mean_of_last_scores,
            "nan_step": self.nan_step,
            "critic_diverged_at": self.divergence_step,
            "collapsed": self.has_collapsed,
            "pretrained_score": self.pretrained_score,
        }


def read(cell: Cell) -> Outcome:
    """Reads a run that is done."""
    run = cell.run
    return Outcome(
        cell.task,
        cell.setting,
        cell.seed,
        dataclasses.replace(curves.read(run.root_dir), records=run.records()),
        {name: curves.read(pretrained.root_dir) for name, pretrained in run.pretrained.items()},
        run.event_step("not_finite"),
        run.event_step("diverged"),
    )


Groups = dict[str, dict[str, list[Outcome]]]


def group(outcomes: Iterable[Outcome]) -> Groups:
    """Returns outcomes by task and name of the setting, in their order."""
    groups: Groups = {}
    for outcome in outcomes:
        groups.setdefault(outcome.task, {}).setdefault(outcome.setting.name, []).append(outcome)
    return groups


def mean_and_std(values: Iterable[Optional[float]]) -> dict[str, Any]:
    """Returns mean, standard deviation (of a sample: n - 1) and number of what is known."""
    known = [value for value in values if value is not None and math.isfinite(value)]
    return {
        "mean": float(np.mean(known)) if known else None,
        "std": float(np.std(known, ddof=1)) if len(known) > 1 else None,
        "n": len(known),
    }


def cell_numbers(outcomes: Sequence[Outcome]) -> dict[str, Any]:
    """Returns the numbers of the seeds of a setting on a task."""
    task, setting = outcomes[0].task, outcomes[0].setting
    made_with = [binding for part in setting.pretraining for binding in part.bindings]
    return {
        "task": task,
        "setting": setting.name,
        "label": setting.label,
        "bindings": [*made_with, *setting.bindings],
        "runs": [outcome.numbers() for outcome in outcomes],
        **{
            name: mean_and_std(getattr(outcome, name) for outcome in outcomes)
            for name in ("last_score", "mean_of_last_scores", "pretrained_score")
        },
    }


def curve_numbers(outcome: Outcome, names: Sequence[str]) -> dict[str, Any]:
    """Returns curves of logged numbers, each with the mean of its end and its largest value."""
    numbers: dict[str, Any] = {}
    for name in names:
        steps, values = outcome.curve(name)
        numbers["steps"] = steps.astype(int).tolist()
        known = values[np.isfinite(values)]
        numbers[name] = {
            "values": _finite(values),
            "mean_of_last": curves.mean_of_last(values, LAST),
            "largest": float(known.max()) if len(known) else None,
        }
    return numbers


def data_of(outcomes: Sequence[Outcome]) -> dict[str, Any]:
    """Returns the description of the data of a task's runs, with its mean normalized score."""
    identity = outcomes[0].run.identity
    mean = identity["data"]["return_mean"]
    score = None if mean is None else tasks.get_task(identity["task"]).normalized_score(mean)
    return {**identity["data"], "score_mean": None if score is None else float(score)}


def what_happened(outcomes: Sequence[Outcome]) -> str:
    """Returns NaN, divergence and collapse of the seeds of a setting; '-' for none."""
    found = []
    for outcome in outcomes:
        seed = f"(seed {outcome.seed})"
        if outcome.nan_step is not None:
            found.append(f"NaN at step {outcome.nan_step:,} {seed}")
        if outcome.divergence_step is not None:
            found.append(f"critic diverged by step {outcome.divergence_step:,} {seed}")
        if outcome.has_collapsed:
            found.append(f"collapsed {seed}")
    return ", ".join(found) or "-"


def text(values: Iterable[Optional[float]], digits: int = 1) -> str:
    """Returns 'mean ± std' of the values of seeds."""
    numbers = mean_and_std(values)
    spread = "" if numbers["std"] is None else f" ± {numbers['std']:.{digits}f}"
    return f"{tables.number(numbers['mean'], digits)}{spread}"


def each(values: Iterable[Optional[float]]) -> str:
    """Returns the values of the seeds."""
    return ", ".join(map(tables.number, values))


def _finite(values: np.ndarray) -> list[Optional[float]]:
    return [float(value) if math.isfinite(value) else None for value in values]
