"""Results of the runs of a grid: scores, logged numbers, collapse; as numbers and as text."""

import itertools
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple, Optional

import numpy as np

from fbrc_agent.environments import tasks
from fbrc_agent.experiments import curves
from fbrc_agent.experiments.curves import LoggedRun
from fbrc_agent.experiments.grid import Run, Setting
from fbrc_agent.training import report
from fbrc_agent.utils import tables

# The last few evaluations of a run, or lines of its log, of which a mean is taken.
LAST = 5
SCORE = "normalized_score"
_EVENTS = {
    "nan_step": "NaN at step {:,}",
    "critic_diverged_at": "critic diverged by step {:,}",
    "collapsed": "collapsed",
}


class Outcome(NamedTuple):
    """A run of a grid that is done.

    Attributes:
      run: The run.
      log: What it logged within its updates.
      pretrained: What the runs logged whose networks it was given, by names of algorithms.
      numbers: What means over seeds are taken of: `last_score`; `mean_of_last_scores`, that of the
        last `LAST`; `pretrained_score`, that of the policy that it was given; and what an
        experiment adds. None is not known.
    """

    run: Run
    log: LoggedRun
    pretrained: Mapping[str, LoggedRun]
    numbers: dict[str, Optional[float]]

    def events(self) -> dict[str, Any]:
        """Returns what happened, None or False for what did not.

        That is the step at which it met NaN or infinity, the step at which |Q| first exceeded any
        return, and whether the mean of its last scores is below half of the pretrained policy's.
        """
        mean, given = self.numbers["mean_of_last_scores"], self.numbers["pretrained_score"]
        return {
            "nan_step": self.log.event_step("not_finite"),
            "critic_diverged_at": self.log.event_step("diverged"),
            "collapsed": mean is not None and given is not None and mean < given - abs(given) / 2,
        }


def read(run: Run) -> Outcome:
    """Reads a run that is done."""
    log = curves.read(run.root_dir, run.steps)
    pretrained = {name: curves.read(taken.root_dir) for name, taken in run.pretrained.items()}
    numbers = {
        "last_score": log.mean_of_last(SCORE),
        "mean_of_last_scores": log.mean_of_last(SCORE, LAST),
        "pretrained_score": next((p.mean_of_last(SCORE) for p in pretrained.values()), None),
    }
    return Outcome(run, log, pretrained, numbers)


class Cell(NamedTuple):
    """The seeds of a setting on a task."""

    task: str
    setting: Setting
    outcomes: Sequence[Outcome]

    def values(self, name: str) -> list[Optional[float]]:
        """Returns a number of each seed; None where it is not known."""
        return [outcome.numbers[name] for outcome in self.outcomes]

    def text(self, name: str, digits: int = 1) -> str:
        """Returns 'mean ± std' of a number over the seeds."""
        numbers = mean_and_std(self.values(name))
        spread = "" if numbers["std"] is None else f" ± {numbers['std']:.{digits}f}"
        return f"{tables.number(numbers['mean'], digits)}{spread}"

    def what_happened(self) -> str:
        """Returns NaN, divergence and collapse of the seeds in words; '-' for none."""
        found = [
            f"{_EVENTS[name].format(value)} (seed {outcome.run.seed})"
            for outcome in self.outcomes
            for name, value in outcome.events().items()
            if value is not None and value is not False
        ]
        return ", ".join(found) or "-"

    def data(self) -> dict[str, Any]:
        """Returns the description of the data, with its mean normalized score."""
        described = self.outcomes[0].log.identity["data"]
        score = report.score(tasks.get_task(self.task), described["return_mean"])
        return {**described, "score_mean": score}

    def to_json(self, logged: Iterable[str]) -> dict[str, Any]:
        """Returns the numbers of each seed, their means, and the curves of logged numbers."""
        return {
            "task": self.task,
            "setting": self.setting.name,
            "label": self.setting.label,
            "bindings": self.setting.all_bindings,
            "runs": [
                {
                    "seed": outcome.run.seed,
                    "directory": outcome.run.root_dir,
                    "curves": {name: _curve(outcome.log, name) for name in logged},
                    **outcome.events(),
                    **outcome.numbers,
                }
                for outcome in self.outcomes
            ],
            **{name: mean_and_std(self.values(name)) for name in self.outcomes[0].numbers},
        }


def read_cells(runs: Sequence[Run]) -> list[Cell]:
    """Reads the runs of a grid that are done, in the order of `grid.make_runs`."""
    groups = itertools.groupby(map(read, runs), lambda o: (o.run.task, o.run.setting))
    return [Cell(*key, list(outcomes)) for key, outcomes in groups]


def mean_and_std(values: Iterable[Optional[float]]) -> dict[str, Any]:
    """Returns mean, standard deviation (of a sample: n - 1) and number of what is known."""
    known = [value for value in values if value is not None and np.isfinite(value)]
    return {
        "mean": float(np.mean(known)) if known else None,
        "std": float(np.std(known, ddof=1)) if len(known) > 1 else None,
        "n": len(known),
    }


def _curve(log: LoggedRun, name: str) -> dict[str, Any]:
    steps, values = log.curve(name)
    known = [float(value) if np.isfinite(value) else None for value in values]
    return {"steps": steps.astype(int).tolist(), "values": known}
