"""What the runs of a grid came to: scores, gradient norms, collapse; as numbers and as tables."""

import dataclasses
import math
import re
from collections.abc import Iterable, Sequence
from typing import Any, Optional

import numpy as np

from fbrc_agent.environments import d4rl
from fbrc_agent.experiments import plot
from fbrc_agent.experiments.grid import Cell, Setting
from fbrc_agent.training import run_directory

# The last few evaluations of a run, or lines of its log, of which a mean is taken.
LAST = 5


@dataclasses.dataclass(frozen=True)
class Outcome:
    """A run of the agent, as far as it came.

    Attributes:
      task: Its task.
      setting: Its setting.
      seed: Its seed.
      root_dir: Its directory.
      agent: Its curves.
      density: The curves of the density that it was given.
      nan_step: The step at which its numbers went bad, or None.
      divergence_step: The step at which its critic was seen beyond any return, or None.
    """

    task: str
    setting: Setting
    seed: int
    root_dir: str
    agent: plot.LoggedRun
    density: plot.LoggedRun
    nan_step: Optional[int]
    divergence_step: Optional[int]

    @property
    def scores(self) -> tuple[np.ndarray, np.ndarray]:
        """The steps [n] and normalized scores [n] of the evaluations."""
        return self.agent.curve("fbrc", "normalized_score")

    @property
    def density_score(self) -> Optional[float]:
        """The normalized score of the density's samples."""
        return _last(self.density.curve("behavior", "normalized_score")[1])

    @property
    def log_likelihood(self) -> Optional[float]:
        """The log-likelihood of the density's monitor batch at its end, nats per action."""
        return _last(self.density.curve("behavior", "log_prob")[1])

    @property
    def last_score(self) -> Optional[float]:
        """The score of the last evaluation."""
        return _last(self.scores[1])

    @property
    def mean_of_last_scores(self) -> Optional[float]:
        """The mean of the last `LAST` scores."""
        return _mean_of_last(self.scores[1])

    @property
    def has_collapsed(self) -> bool:
        """Whether its last scores are, on average, below half of its density's score."""
        score, density = self.mean_of_last_scores, self.density_score
        return score is not None and density is not None and score < density - abs(density) / 2

    def numbers(self) -> dict[str, Any]:
        """Returns what is kept of it."""
        steps, scores = self.scores
        return {
            "seed": self.seed,
            "directory": self.root_dir,
            "evaluations": {"steps": steps.astype(int).tolist(), "scores": _finite(scores)},
            "last_score": self.last_score,
            "mean_of_last_scores": self.mean_of_last_scores,
            "nan_step": self.nan_step,
            "critic_diverged_at": self.divergence_step,
            "collapsed": self.has_collapsed,
            "density": {
                "score": self.density_score,
                "log_likelihood": self.log_likelihood,
            },
        }


def read(cell: Cell) -> Outcome:
    """Reads a run that is done."""
    run = cell.run
    assert run.density is not None
    failure = run.failure()
    match = re.search(r"the critic diverges: at step (\d+)", run.log())
    divergence = int(match.group(1)) if match else None
    if divergence is not None and divergence > run.num_updates:
        divergence = None
    agent, density = (
        plot.LoggedRun(r.root_dir, run_directory.read_identity(r.root_dir), r.records(), None)
        for r in (run, run.density)
    )
    return Outcome(
        cell.task,
        cell.setting,
        cell.seed,
        run.root_dir,
        agent,
        density,
        failure["step"] if failure else None,
        divergence,
    )


Groups = dict[str, dict[str, list[Outcome]]]


def group(outcomes: Iterable[Outcome]) -> Groups:
    """Returns outcomes by task and name of the setting, in their order."""
    groups: Groups = {}
    for outcome in outcomes:
        groups.setdefault(outcome.task, {}).setdefault(outcome.setting.name, []).append(outcome)
    return groups


def mean_and_std(values: Sequence[Optional[float]]) -> dict[str, Any]:
    """Returns mean, standard deviation (of a sample: n - 1) and number of what is known."""
    known = [value for value in values if value is not None and math.isfinite(value)]
    return {
        "mean": float(np.mean(known)) if known else None,
        "std": float(np.std(known, ddof=1)) if len(known) > 1 else None,
        "n": len(known),
    }


def cell_numbers(outcomes: Sequence[Outcome]) -> dict[str, Any]:
    """Returns the numbers of the seeds of a setting on a task."""
    first = outcomes[0]
    return {
        "task": first.task,
        "setting": first.setting.name,
        "label": first.setting.label,
        "bindings": [*first.setting.density.bindings, *first.setting.bindings],
        "runs": [outcome.numbers() for outcome in outcomes],
        "last_score": mean_and_std([o.last_score for o in outcomes]),
        "mean_of_last_scores": mean_and_std([o.mean_of_last_scores for o in outcomes]),
        "density_score": mean_and_std([o.density_score for o in outcomes]),
        "log_likelihood": mean_and_std([o.log_likelihood for o in outcomes]),
    }


def gradient_norms(outcome: Outcome) -> dict[str, Any]:
    """Returns the gradient norms of a run: its curve, their ends and the largest, 1 / action."""
    numbers: dict[str, Any] = {}
    for key in ("offset_gradient_norm", "behavior_gradient_norm"):
        steps, values = outcome.agent.curve("fbrc", key)
        numbers["steps"] = steps.astype(int).tolist()
        known = values[np.isfinite(values)]
        numbers[key] = {
            "values": _finite(values),
            "mean_of_last": _mean_of_last(values),
            "largest": float(known.max()) if len(known) else None,
        }
    return numbers


def data_of(outcomes: Sequence[Outcome]) -> dict[str, Any]:
    """Returns the description of the data of a task's runs, with its mean normalized score."""
    identity = outcomes[0].agent.identity
    data = {**identity["data"]}
    mean = data["return_mean"]
    task = d4rl.get_task(identity["task"])
    data["score_mean"] = None if mean is None else float(task.normalized_score(mean))
    return data


def what_happened(outcomes: Sequence[Outcome]) -> str:
    """Returns NaN, divergence and collapse of the seeds of a setting; '-' for none."""
    found = []
    for outcome in outcomes:
        if outcome.nan_step is not None:
            found.append(f"NaN at step {outcome.nan_step:,} (seed {outcome.seed})")
        if outcome.divergence_step is not None:
            found.append(
                f"critic diverged by step {outcome.divergence_step:,} (seed {outcome.seed})"
            )
        if outcome.has_collapsed:
            found.append(f"collapsed (seed {outcome.seed})")
    return ", ".join(found) or "-"


def text(numbers: dict[str, Any], digits: int = 1) -> str:
    """Returns 'mean ± std' of what `mean_and_std` returned."""
    if numbers["mean"] is None:
        return "-"
    spread = "" if numbers["std"] is None else f" ± {numbers['std']:.{digits}f}"
    return f"{numbers['mean']:.{digits}f}{spread}"


def each(values: Sequence[Optional[float]], digits: int = 1) -> str:
    """Returns the values of the seeds."""
    return ", ".join("-" if value is None else f"{value:.{digits}f}" for value in values)


def table(rows: Sequence[Sequence[str]]) -> str:
    """Returns a Markdown table; the first row is its head."""
    widths = [max(map(len, column)) for column in zip(*rows)]
    lines = ["| " + " | ".join(c.ljust(w) for c, w in zip(row, widths)) + " |" for row in rows]
    lines.insert(1, "|" + "|".join("-" * (width + 2) for width in widths) + "|")
    return "\n".join(lines)


def _last(values: np.ndarray) -> Optional[float]:
    known = values[np.isfinite(values)]
    return float(known[-1]) if len(known) else None


def _mean_of_last(values: np.ndarray) -> Optional[float]:
    known = values[np.isfinite(values)]
    return float(known[-LAST:].mean()) if len(known) else None


def _finite(values: np.ndarray) -> list[Optional[float]]:
    return [float(value) if math.isfinite(value) else None for value in values]
