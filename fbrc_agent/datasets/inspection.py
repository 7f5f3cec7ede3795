"""What in a data set is likely to spoil training: findings, as data, and a sentence for each kind.

Everything here is a warning; what cannot be trained on is refused when it is read.
"""

import dataclasses
from collections.abc import Iterable, Mapping
from typing import Optional

import numpy as np

# Columns are judged by this many rows, evenly spaced; a constant column then by all.
_SAMPLE_ROWS = 10_000

# Networks and optimizers are made for inputs of about 1. A column is reported whose root mean
# square is above the first number, or above the second times that of the median column.
_LARGE, _LARGE_TO_MEDIAN = 100.0, 1000.0

# Q is of the size of reward / (1 - discount): 1e5 for a reward of 1e3, at a discount of 0.99.
_LARGE_REWARD, _SMALL_REWARD = 1e3, 1e-4

# Below these shares, repeated and left-out rows are what logs have.
_DUPLICATES, _LEFT_OUT = 0.01, 0.1

# Knuth's multiplier: it carries every bit of a number into the upper ones.
_HASH_FACTOR = np.uint32(2654435761)


@dataclasses.dataclass(frozen=True)
class Finding:
    """One thing that a user should know of the data before training on it.

    Attributes:
      kind: A key of `SENTENCES`.
      column: The array, with the column's number where it has several: `observations[3]`.
      count: How many rows it is about, where that is a number.
      minimum: The smallest value of the column, where it is about values.
      maximum: The largest.
      typical: The root mean square of the column, where it is about sizes.
    """

    kind: str
    column: str
    count: Optional[int] = None
    minimum: Optional[float] = None
    maximum: Optional[float] = None
    typical: Optional[float] = None


# `{columns}` are those of all findings of the kind; the other numbers are of the first one.
SENTENCES = {
    "constant_column": (
        "{columns} is {minimum:g} in every row; the networks learn nothing from it, leave it out."
    ),
    "large_scale": (
        "{columns} has values of about {typical:g} ({minimum:g} to {maximum:g}), which drown the "
        "other inputs; bind preprocess.normalize_observations = True, unless it is bound already."
    ),
    "large_offset": (
        "{columns} is {minimum:g} to {maximum:g}, far from 0 for its range, which drowns the other "
        "inputs; bind preprocess.normalize_observations = True, unless it is bound already."
    ),
    "constant_rewards": "rewards is {minimum:g} in every row; there is nothing to prefer.",
    "large_rewards": (
        "rewards has values of about {typical:g} ({minimum:g} to {maximum:g}), so Q would be about "
        "100 times that; bind preprocess.reward_scale to scale them to about 1."
    ),
    "small_rewards": (
        "rewards has values of about {typical:g} ({minimum:g} to {maximum:g}), which log mu and "
        "the entropy drown; bind preprocess.reward_scale to scale them to about 1."
    ),
    "duplicate_rows": (
        "about {count} transitions are repetitions of others; if they are no accident of the "
        "environment, a file may be in the data twice."
    ),
    "rows_left_out": (
        "{count} rows are no transition, for want of a next observation; if episodes are longer "
        "than that says, look at the flags and the episode column."
    ),
    "clipped_actions": "{count} actions were outside their bounds and were clipped.",
    "broken_episodes": (
        "{count} times next_observations is not the observation of the next row of the episode; an "
        "episode begins there."
    ),
    "no_time_limits": (
        "no column has time limits, so the row after each one that is not terminal counts as its "
        "next; name timeouts or episodes in load_dataset.columns if an episode can be cut."
    ),
    "assumed_time_limit": (
        "has no timeouts; episodes are taken to be cut after {count} steps, pass "
        "max_episode_steps if that is wrong."
    ),
}


def sentences(findings: Iterable[Finding]) -> list[str]:
    """Returns a sentence for each kind of finding, which names up to five columns."""
    kinds: dict[str, list[Finding]] = {}
    for finding in findings:
        kinds.setdefault(finding.kind, []).append(finding)
    return [_sentence(kind, found) for kind, found in kinds.items()]


def _sentence(kind: str, found: list[Finding]) -> str:
    columns = ", ".join(finding.column for finding in found[:5])
    if len(found) > 5:
        columns += f" and {len(found) - 5} more"
    return SENTENCES[kind].format(columns=columns, **dataclasses.asdict(found[0]))


def inspect(arrays: Mapping[str, np.ndarray], num_rows: int) -> list[Finding]:
    """Inspects N transitions, mostly by a sample, in a small part of the time that reading takes.

    Args:
      arrays: observations [N, S], actions [N, A], rewards [N].
      num_rows: Steps of the source, N and those that were left out.

    Returns:
      The findings.
    """
    num_left_out = num_rows - len(arrays["rewards"])
    findings = []
    if num_left_out > _LEFT_OUT * num_rows:
        findings.append(Finding("rows_left_out", "observations", num_left_out))
    return [
        *findings,
        *_inspect_observations(arrays["observations"]),
        *_inspect_actions(arrays["actions"]),
        *_inspect_rewards(arrays["rewards"]),
        *_inspect_duplicates(arrays),
    ]


def _sample(array: np.ndarray) -> np.ndarray:
    return array[:: -(-len(array) // _SAMPLE_ROWS)].astype(np.float64)


def _constant_columns(array: np.ndarray) -> list[int]:
    """Returns the columns whose rows, if several, are all equal."""
    if len(array) == 1:
        return []
    candidates = np.flatnonzero((_sample(array) == array[0]).all(axis=0))
    return [int(i) for i in candidates if (array[:, i] == array[0, i]).all()]


def _finding(kind: str, name: str, values: np.ndarray, typical: Optional[float] = None) -> Finding:
    """Returns a finding with the range of all values, in the units of the file."""
    return Finding(kind, name, None, float(values.min()), float(values.max()), typical)


def _inspect_observations(observations: np.ndarray) -> list[Finding]:
    sample = _sample(observations)
    means, deviations = sample.mean(axis=0), sample.std(axis=0)
    sizes = np.hypot(means, deviations)
    constant = _constant_columns(observations)
    limit = min(_LARGE, _LARGE_TO_MEDIAN * max(float(np.median(sizes)), 1e-30))
    findings = []
    for i in range(observations.shape[1]):
        name, values = f"observations[{i}]", observations[:, i]
        if i in constant:
            findings.append(_finding("constant_column", name, values))
        if sizes[i] > limit:
            kind = "large_offset" if abs(means[i]) > 10 * deviations[i] else "large_scale"
            findings.append(_finding(kind, name, values, float(sizes[i])))
    return findings


def _inspect_actions(actions: np.ndarray) -> list[Finding]:
    return [
        _finding("constant_column", f"actions[{i}]", actions[:, i])
        for i in _constant_columns(actions)
    ]


def _inspect_rewards(rewards: np.ndarray) -> list[Finding]:
    if _constant_columns(rewards[:, None]):
        return [_finding("constant_rewards", "rewards", rewards)]
    size = float(np.sqrt(np.mean(np.square(_sample(rewards)))))
    if size > _LARGE_REWARD:
        return [_finding("large_rewards", "rewards", rewards, size)]
    if 0 < size and np.abs(rewards).max() < _SMALL_REWARD:
        return [_finding("small_rewards", "rewards", rewards, size)]
    return []


def _inspect_duplicates(arrays: Mapping[str, np.ndarray]) -> list[Finding]:
    """Compares rows whose hashes fall into one class: all that are equal are among them."""
    first = [arrays["observations"], arrays["actions"], arrays["rewards"][:, None]]
    num_rows = len(arrays["rewards"])
    if num_rows > _SAMPLE_ROWS:
        hashes = np.zeros(num_rows, np.uint32)
        for array in first:  # The ends of each array, which differ in most rows.
            for i in {0, array.shape[1] - 1}:
                hashes += array[:, i].view(np.uint32)
                hashes *= _HASH_FACTOR
        hashes >>= np.uint32(16)
        chosen = np.flatnonzero(hashes < 2**16 * _SAMPLE_ROWS / num_rows)[: 2 * _SAMPLE_ROWS]
    else:
        chosen = np.arange(num_rows)
    if not len(chosen):
        return []
    rows = np.concatenate([array[chosen] for array in first], axis=1)
    unique = np.unique(rows.view(np.dtype((np.void, rows.dtype.itemsize * rows.shape[1]))))
    share = 1 - len(unique) / len(chosen)
    return (
        [Finding("duplicate_rows", "rows", round(share * num_rows))] if share > _DUPLICATES else []
    )
