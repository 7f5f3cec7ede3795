"""Where episodes begin and end, in rows of a file and in transitions."""

import numpy as np

from fbrc_agent.datasets import checks


def starts_of_rows(ends: np.ndarray, keep: np.ndarray) -> np.ndarray:
    """Rows that begin an episode, counted among the rows that are kept.

    Args:
      ends: [M] bool, true in the last row of each episode, by a terminal state or a time limit.
      keep: [M] bool, the rows that become transitions. A row may be left out only if it ends an
        episode or is the last of all, so that what is left of an episode is its beginning.

    Returns:
      [E] int64. An episode of which no row is kept has no place among them.
    """
    begins = np.append(True, ends[:-1])
    return np.flatnonzero(begins[keep])


def infer_starts(
    observations: np.ndarray, next_observations: np.ndarray, discounts: np.ndarray
) -> np.ndarray:
    """Transitions that begin an episode, where nothing records them.

    One begins after discount 0, and where s is not the s' of the transition before.

    Args:
      observations: s, [N, S].
      next_observations: s', [N, S].
      discounts: d, [N].

    Returns:
      [E] int64, the first 0.
    """
    begins = np.append(True, discounts[:-1] == 0)
    for start, rows in checks.pieces(observations[1:]):
        end = start + len(rows)
        begins[start + 1 : end + 1] |= (rows != next_observations[start:end]).any(axis=1)
    return np.flatnonzero(begins)


def infer_timeouts(terminals: np.ndarray, limit: int) -> np.ndarray:
    """`d4rl.qlearning_dataset`'s time limits for a file that does not record them.

    That function counts steps from 0 and cuts when the count is `limit` - 1; after a cut it counts
    from 0 again, after any other terminal from 1.

    Args:
      terminals: [M] bool.
      limit: Greatest number of steps of an episode.

    Returns:
      [M] bool, the rows that are cut.
    """
    timeouts = np.zeros(len(terminals), bool)
    start, count = 0, 0
    for end in np.append(np.flatnonzero(terminals) + 1, len(terminals)):
        timeouts[start + limit - 1 - count : end : limit] = True
        start, count = end, int(not timeouts[end - 1])
    return timeouts


def complete_returns(rewards: np.ndarray, ends: np.ndarray) -> np.ndarray:
    """Sums of rewards, in float64, of the episodes that end in the file.

    Args:
      rewards: [M].
      ends: [M] bool, as of `starts_of_rows`.

    Returns:
      [C], one for each true value of `ends`.
    """
    last = np.flatnonzero(ends)
    if not last.size:
        return np.zeros([0])
    starts = np.append(0, last[:-1] + 1)
    return np.add.reduceat(rewards[: last[-1] + 1].astype(np.float64), starts)
