"""Results of the runs of a grid: scores, logged numbers, collapse; as numbers and as cells."""

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Optional

import numpy as np

from fbrc_agent.environments import tasks
from fbrc_agent.experiments import curves
from fbrc_agent.experiments.grid import Run
from fbrc_agent.utils import tables

# The last few evaluations of a run, or lines of its log, of which a mean is taken.
LAST = 5
_SCORE = "normalized_score"


@dataclasses.dataclass(frozen=True)
class Outcome:
    """A run of a grid that is done.

    Attributes:
      run: The run.
      log: What it logged within its updates.
      pretrained: What the runs logged whose networks it was given, by names of algorithms.
    """

    run: Run
    log: curves.LoggedRun
    pretrained: Mapping[str, curves.LoggedRun]

    def pretrained_number(self, name: str) -> Optional[float]:
        """Returns the last value of a number of the network that it was given; None without."""
        return next((log.mean_of_last(name) for log in self.pretrained.values()), None)

    @property
    def pretrained_score(self) -> Optional[float]:
        """The normalized score of the policy that it was given."""
        return self.pretrained_number(_SCORE)

    @property
    def last_score(self) -> Optional[float]:
        """The score of the last evaluation."""
        return self.log.mean_of_last(_SCORE)

    @property
    def mean_of_last_scores(self) -> Optional[float]:
        """The mean of the last `LAST` scores."""
        return self.log.mean_of_last(_SCORE, LAST)

    @property
    def nan_step(self) -> Optional[int]:
        """The step at which it met NaN or infinity, or None."""
        return self.log.event_step("not_finite")

    @property
    def critic_diverged_at(self) -> Optional[int]:
        """The step at which its |Q| first exceeded any return, or None."""
        return self.log.event_step("diverged")

    @property
    def collapsed(self) -> bool:
        """Whether its last scores are, on average, below half of the pretrained policy's score."""
        score, given = self.mean_of_last_scores, self.pretrained_score
        return score is not None and given is not None and score < given - abs(given) / 2

    @property
    def data(self) -> dict[str, Any]:
        """The description of its data, with its mean normalized score."""
        described, task = self.log.identity["data"], tasks.get_task(self.run.task)
        mean = described["return_mean"]
        score = None if mean is None else task.normalized_score(mean)
        return {**described, "score_mean": None if score is None else float(score)}

    def numbers(self) -> dict[str, Any]:
        """Returns what a report keeps of it."""
        steps, scores = self.log.curve(_SCORE)
        names = ("last_score", "mean_of_last_scores", "nan_step", "critic_diverged_at")
        return {
            "seed": self.run.seed,
            "directory": self.run.root_dir,
            "evaluations": {"steps": steps.astype(int).tolist(), "scores": _finite(scores)},
            **{name: getattr(self, name) for name in (*names, "collapsed", "pretrained_score")},
        }

    def curve_numbers(self, names: Sequence[str]) -> dict[str, Any]:
        """Returns curves of logged numbers, each with the mean of its end and its largest value."""
        numbers: dict[str, Any] = {}
        for name in names:
            steps, values = self.log.curve(name)
            known = values[np.isfinite(values)]
            numbers["steps"] = steps.astype(int).tolist()
            numbers[name] = {
                "values": _finite(values),
                "mean_of_last": self.log.mean_of_last(name, LAST),
                "largest": float(known.max()) if len(known) else None,
            }
        return numbers


def read(run: Run) -> Outcome:
    """Reads a run that is done."""
    pretrained = {name: curves.read(taken.root_dir) for name, taken in run.pretrained.items()}
    return Outcome(run, curves.read(run.root_dir, run.steps), pretrained)


def mean_and_std(values: Iterable[Optional[float]]) -> dict[str, Any]:
    """Returns mean, standard deviation (of a sample: n - 1) and number of what is known."""
    known = [value for value in values if value is not None and np.isfinite(value)]
    return {
        "mean": float(np.mean(known)) if known else None,
        "std": float(np.std(known, ddof=1)) if len(known) > 1 else None,
        "n": len(known),
    }


def cell_numbers(outcomes: Sequence[Outcome]) -> dict[str, Any]:
    """Returns the numbers of the seeds of a setting on a task."""
    run = outcomes[0].run
    return {
        "task": run.task,
        "setting": run.setting.name,
        "label": run.setting.label,
        "bindings": run.setting.all_bindings,
        "runs": [outcome.numbers() for outcome in outcomes],
        **{
            name: mean_and_std(getattr(outcome, name) for outcome in outcomes)
            for name in ("last_score", "mean_of_last_scores", "pretrained_score")
        },
    }


def what_happened(outcomes: Sequence[Outcome]) -> str:
    """Returns NaN, divergence and collapse of the seeds of a setting; '-' for none."""
    found = []
    for outcome in outcomes:
        nan, diverged = outcome.nan_step, outcome.critic_diverged_at
        texts = (
            None if nan is None else f"NaN at step {nan:,}",
            None if diverged is None else f"critic diverged by step {diverged:,}",
            "collapsed" if outcome.collapsed else None,
        )
        found += [f"{text} (seed {outcome.run.seed})" for text in texts if text]
    return ", ".join(found) or "-"


def text(values: Iterable[Optional[float]], digits: int = 1) -> str:
    """Returns 'mean ± std' of the values of seeds."""
    numbers = mean_and_std(values)
    spread = "" if numbers["std"] is None else f" ± {numbers['std']:.{digits}f}"
    return f"{tables.number(numbers['mean'], digits)}{spread}"


def _finite(values: np.ndarray) -> list[Optional[float]]:
    return [float(value) if np.isfinite(value) else None for value in values]
