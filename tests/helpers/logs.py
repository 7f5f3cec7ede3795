"""A small log, as arrays, and the transitions that any source made of it must give.

Episode 0 has three steps and ends in a terminal; episode 1 has four and is cut by a time limit;
episode 2 has two, and is not over. Each keeps its last observation.
"""

import dataclasses

import numpy as np

LENGTHS = (3, 4, 2)
NAMES = ("observations", "actions", "rewards", "next_observations", "discounts")


@dataclasses.dataclass
class Episode:
    """T steps: observations [T + 1, S], actions [T, A], rewards [T], flags [T]."""

    observations: np.ndarray
    actions: np.ndarray
    rewards: np.ndarray
    terminals: np.ndarray
    timeouts: np.ndarray


def make_episodes(seed=0, lengths=LENGTHS):
    random = np.random.default_rng(seed)
    episodes = []
    for index, length in enumerate(lengths):
        last = np.arange(length) == length - 1
        episodes.append(
            Episode(
                random.normal(size=(length + 1, 3)).astype(np.float32),
                random.uniform(-1, 1, size=(length, 2)).astype(np.float32),
                random.normal(size=length).astype(np.float32),
                last & (index % 3 == 0),
                last & (index % 3 == 1),
            )
        )
    return episodes


def transitions(episodes):
    """All steps of episodes that keep their last observation."""
    return {
        "observations": np.concatenate([e.observations[:-1] for e in episodes]),
        "actions": np.concatenate([e.actions for e in episodes]),
        "rewards": np.concatenate([e.rewards for e in episodes]),
        "next_observations": np.concatenate([e.observations[1:] for e in episodes]),
        "discounts": 1 - np.concatenate([e.terminals for e in episodes]).astype(np.float32),
    }


def columns(episodes):
    """The steps' rows, and what a table says of them."""
    arrays = transitions(episodes)
    del arrays["discounts"]
    numbers = [np.full(len(e.rewards), i) for i, e in enumerate(episodes)]
    return {
        **arrays,
        "terminals": np.concatenate([e.terminals for e in episodes]),
        "timeouts": np.concatenate([e.timeouts for e in episodes]),
        "episodes": np.concatenate(numbers),
    }


def without_last_observations(episodes):
    """The transitions of a log without next observations, and which terminals have a stand-in."""
    kept = [np.append(np.ones(len(e.rewards) - 1, bool), e.terminals[-1]) for e in episodes]
    arrays = transitions(episodes)
    return {name: array[np.concatenate(kept)] for name, array in arrays.items()}


def assert_same(data, expected, lengths=LENGTHS):
    """Compares transitions to the bit, and the lengths of episodes; s' only where d is not 0."""
    for name in NAMES:
        rows = expected["discounts"] > 0 if name == "next_observations" else slice(None)
        np.testing.assert_array_equal(getattr(data, name)[rows], expected[name][rows], name)
    np.testing.assert_array_equal(data.episode_lengths, lengths)
