"""Rows of episodes: what every reader of a format hands on, whatever the format is.

A row is a step (s, a, r) or, where a format keeps it, the observation after an episode's last one.
`transitions.pair` makes transitions of rows; no reader pairs anything itself.
"""

import dataclasses
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Optional, Protocol

import numpy as np

from fbrc_agent.datasets import checks
from fbrc_agent.datasets.inspection import Finding
from fbrc_agent.utils.errors import InputError

# The columns by their names here, and the other names by which files have them.
NAMES = {
    "observations": (),
    "actions": (),
    "rewards": (),
    "next_observations": (),
    "terminals": ("terminations",),
    "timeouts": ("truncations",),
    "episodes": (),
}
STEP_COLUMNS = ("observations", "actions", "rewards")


class Column(Protocol):
    """A column of N rows, which may be in a file."""

    @property
    def shape(self) -> tuple[int, ...]:
        """[N] or [N, size]."""

    @property
    def dtype(self) -> np.dtype:
        """The type in the file."""

    def blocks(self, num_rows: Optional[int] = None) -> Iterator[np.ndarray]:
        """Yields the rows in order, float32, `num_rows` at a time or as many as suits the file."""


@dataclasses.dataclass(frozen=True)
class ArrayColumn:
    """A column in memory."""

    array: np.ndarray

    @property
    def shape(self) -> tuple[int, ...]:
        """[N] or [N, size]."""
        return self.array.shape

    @property
    def dtype(self) -> np.dtype:
        """The type of the array."""
        return self.array.dtype

    def blocks(self, num_rows: Optional[int] = None) -> Iterator[np.ndarray]:
        """Yields views, or copies where the type is another."""
        num_rows = num_rows or checks.piece_rows(self.shape)
        for start in range(0, len(self.array), num_rows):
            with np.errstate(over="ignore"):  # Too large a value becomes Inf, which is refused.
                yield self.array[start : start + num_rows].astype(np.float32, copy=False)


@dataclasses.dataclass
class Rows:
    """N rows of consecutive episodes of one file.

    Attributes:
      name: The file, in messages.
      observations: [N, S].
      actions: [N, A].
      rewards: [N].
      discounts: [N], any real type; 0 where the step's next observation is terminal, mostly else 1.
      ends: [N] bool, the last rows of episodes.
      next_observations: [N, S], the file's own; None where the next row is the next observation.
        All NaN in the last row of an episode means that the file has none.
      steps: [N] bool, false for rows that hold only an episode's last observation, all of which are
        ends; None where every row is a step.
      knows_cuts: Whether `ends` has the time limits too, and not the terminals alone.
      action_bounds: Those that the file records.
      findings: What reading met that a user should know.
    """

    name: str
    observations: Column
    actions: Column
    rewards: Column
    discounts: np.ndarray
    ends: np.ndarray
    next_observations: Optional[Column] = None
    steps: Optional[np.ndarray] = None
    knows_cuts: bool = True
    action_bounds: Optional[checks.ActionBounds] = None
    findings: tuple[Finding, ...] = ()

    def __post_init__(self) -> None:
        columns = {key: getattr(self, key) for key in STEP_COLUMNS}
        if self.next_observations is not None:
            columns["next_observations"] = self.next_observations
        for key, column in columns.items():
            checks.check_kind_and_rank(self.name, key, column)
        checks.check_lengths(self.name, {**columns, "ends": self.ends})
        if self.discounts.dtype != bool:
            wrong = ~((self.discounts >= 0) & (self.discounts <= 1))
            wanted = "every value must be in [0, 1]"
            checks.check_rows(self.name, "discounts", self.discounts, wrong, wanted)
        if (
            "next_observations" in columns
            and self.sizes[0] != columns["next_observations"].shape[1]
        ):
            raise InputError(
                f"{self.name}: next_observations has shape {columns['next_observations'].shape}; "
                f"it must be that of observations, {self.observations.shape}."
            )

    @property
    def sizes(self) -> tuple[int, int]:
        """(S, A)."""
        return self.observations.shape[1], self.actions.shape[1]

    def __len__(self) -> int:
        return len(self.ends)


def check_columns(columns: Any) -> dict[str, Any]:
    """Returns `load_dataset.columns` as a dict; refuses names that are not of `NAMES`."""
    if columns is not None and not isinstance(columns, Mapping):
        raise InputError(
            f"load_dataset.columns is {columns!r}; it must be a dict, such as "
            "{'observations': 'state_*', 'actions': ('force',), 'episodes': 'episode'}."
        )
    for name in columns or {}:
        if name not in NAMES:
            raise InputError(
                f"load_dataset.columns has the key {name!r}; its keys must be of "
                f"{', '.join(NAMES)}."
            )
    return dict(columns or {})


def from_columns(
    name: str,
    columns: Mapping[str, Column],
    flags: Mapping[str, np.ndarray],
    episodes: Optional[np.ndarray] = None,
    max_episode_steps: Optional[int] = None,
    action_bounds: Optional[checks.ActionBounds] = None,
) -> Rows:
    """Returns the rows of a table, by its columns of `NAMES`.

    Args:
      name: The file, in messages.
      columns: `STEP_COLUMNS`, and `next_observations` where the file has them.
      flags: `terminals` and `timeouts`, [N] bool, those that the file has.
      episodes: [N], of any type; an episode is a run of equal entries.
      max_episode_steps: A number of steps after which every episode is cut, where the file has
        neither time limits nor episodes nor next observations.
      action_bounds: Those that the file records.

    Raises:
      InputError: If nothing says where episodes end, or the columns do not fit together.
    """
    num_rows = columns["rewards"].shape[0]
    checks.check_lengths(name, {**columns, **flags})
    terminals = flags.get("terminals", np.zeros(num_rows, bool))
    ends = terminals | flags.get("timeouts", False)
    findings: tuple[Finding, ...] = ()
    if episodes is not None:
        ends = ends | _episode_ends(name, episodes, num_rows)
    knows_cuts = "timeouts" in flags or episodes is not None
    if not knows_cuts and "next_observations" not in columns:
        if max_episode_steps is not None:
            ends = ends | cut_after(terminals, max_episode_steps)
        elif "terminals" in flags:
            findings = (Finding("no_time_limits", "timeouts"),)
        else:
            raise InputError(
                f"{name}: no column says where an episode ends; name one in load_dataset.columns, "
                "such as {'episodes': 'episode_index'} or {'terminals': 'done'}."
            )
    return Rows(
        name,
        columns["observations"],
        columns["actions"],
        columns["rewards"],
        discounts=~terminals,
        ends=ends,
        next_observations=columns.get("next_observations"),
        knows_cuts=knows_cuts,
        action_bounds=action_bounds,
        findings=findings,
    )


def _episode_ends(name: str, episodes: np.ndarray, num_rows: int) -> np.ndarray:
    """Returns the last rows, [N] bool, of runs of equal entries; refuses a run that resumes."""
    episodes = _labels(name, episodes)
    checks.check_lengths(name, {"rewards": np.empty(num_rows), "episodes": episodes})
    begins = np.append(True, episodes[1:] != episodes[:-1])
    starts = np.flatnonzero(begins)
    _, first = np.unique(episodes[starts], return_index=True)
    if len(first) < len(starts):
        resumed = np.setdiff1d(np.arange(len(starts)), first)[0]
        raise InputError(
            f"{name}: episodes has {episodes[starts[resumed]]!s} in row {starts[resumed]} again, "
            "after another episode; the rows of an episode must stand together, in their order: "
            "sort the rows by episode and step."
        )
    return np.append(begins[1:], True)


def _labels(name: str, episodes: np.ndarray) -> np.ndarray:
    """Returns names or numbers of episodes, [N]; refuses what is missing."""
    if episodes.ndim == 2 and episodes.shape[1] == 1:
        episodes = episodes[:, 0]
    if episodes.ndim != 1 or episodes.dtype.kind not in "biufUSO":
        raise InputError(
            f"{name}: episodes has type {episodes.dtype} and shape {episodes.shape}; it must have "
            "a name or number in each row."
        )
    missing = np.zeros(len(episodes), bool)
    if episodes.dtype.kind == "f":
        missing = np.isnan(episodes)
    if episodes.dtype.kind == "U":
        missing = episodes == ""
    if episodes.dtype.kind == "O":
        values = episodes.tolist()
        missing[:] = [v is None or (isinstance(v, float) and np.isnan(v)) for v in values]
        episodes = np.array([str(value) for value in values], str)
    wanted = "every row must have the name or number of its episode"
    checks.check_rows(name, "episodes", episodes, missing, wanted)
    return episodes


def cut_after(terminals: np.ndarray, limit: int, count_after_terminal: int = 0) -> np.ndarray:
    """Returns the rows, [N] bool, at which an episode of more than `limit` steps is cut.

    Args:
      terminals: [N] bool.
      limit: Steps of an episode.
      count_after_terminal: How many steps an episode counts as having when it begins after a
        terminal that is no cut. `d4rl.qlearning_dataset` counts 1.
    """
    cuts = np.zeros(len(terminals), bool)
    start, count = 0, 0
    for end in np.append(np.flatnonzero(terminals) + 1, len(terminals)):
        cuts[start + limit - 1 - count : end : limit] = True
        start, count = end, count_after_terminal * int(not cuts[end - 1])
    return cuts


def from_episodes(
    name: str,
    episodes: Iterable[tuple[Any, Any, Any, Any]],
    action_bounds: Optional[checks.ActionBounds] = None,
) -> Rows:
    """Returns the rows of episodes that keep their last observation.

    Args:
      name: The data set, in messages.
      episodes: For each, observations [T + 1, S], actions [T, A], rewards [T], discounts [T].
      action_bounds: Those that the data set records.

    Raises:
      InputError: If there is no episode, or lengths or sizes do not fit together.
    """
    columns: dict[str, list[np.ndarray]] = {key: [] for key in (*STEP_COLUMNS, "discounts")}
    for index, episode in enumerate(episodes):
        place = f"{name}: episode {index}"
        arrays = [checks.to_array(place, *item) for item in zip(columns, episode)]
        num_steps = len(arrays[2])
        if [len(array) for array in arrays] != [num_steps + 1, num_steps, num_steps, num_steps]:
            lengths = ", ".join(f"{key} {len(array)}" for key, array in zip(columns, arrays))
            raise InputError(
                f"{place} has arrays of lengths {lengths}; it must have one observation more than "
                "steps, the one after its last step."
            )
        for column, array in zip(columns.values(), arrays):
            if column and column[0].shape[1:] != array.shape[1:]:
                raise InputError(
                    f"{place} has rows of shape {array.shape[1:]} where episode 0 has "
                    f"{column[0].shape[1:]}; all must be of one size."
                )
            padding = ((0, num_steps + 1 - len(array)), *[(0, 0)] * (array.ndim - 1))
            column.append(np.pad(array, padding))
    if not columns["rewards"]:
        raise InputError(f"{name}: has no episode; it must have at least one transition.")
    joined = {key: np.concatenate(column) for key, column in columns.items()}
    ends = np.zeros(len(joined["rewards"]), bool)
    ends[np.cumsum([len(rewards) for rewards in columns["rewards"]]) - 1] = True
    observations, actions, rewards = (ArrayColumn(joined[key]) for key in STEP_COLUMNS)
    return Rows(
        name,
        observations,
        actions,
        rewards,
        discounts=joined["discounts"],
        ends=ends,
        steps=~ends,
        action_bounds=action_bounds,
    )
