"""The one place where rows become transitions, whatever file they come from."""

from collections.abc import Sequence
from typing import Any, Callable, Optional

import numpy as np

from fbrc_agent.datasets import checks
from fbrc_agent.datasets.inspection import Finding
from fbrc_agent.datasets.offline_data import OfflineData
from fbrc_agent.datasets.rows import Column, Rows
from fbrc_agent.utils.errors import InputError

# A next observation this far from the next row's (relative to values above 1) is a rounding of it.
_ROUNDING = 1e-5


def pair(
    parts: Sequence[Rows],
    source: str,
    action_bounds: Optional[checks.ActionBounds] = None,
    clip_actions: bool = False,
    trust_next: bool = False,
) -> OfflineData:
    """Makes transitions of the rows of one or several files.

    The next observation of a row is the file's own where it has one, else the observation of the
    next row. A row whose action ended its episode is left out where the file has no observation
    after it, unless its next observation is terminal: then it stands with discount 0, and with the
    next row's observation, whichever that is, or in the file's last row with its own, for s'. An
    episode does not continue from one file to the next.

    Args:
      parts: Rows of each file.
      source: What the data was asked for by, for records.
      action_bounds: As of `load_dataset`; by default those that the files record.
      clip_actions: As of `load_dataset`.
      trust_next: Whether a file's own next observation is used where it contradicts the next row.

    Returns:
      The data; the arrays are the only copies made.

    Raises:
      InputError: If a row that is used has a value that is not usable, or no row is.
    """
    _check_sizes(parts)
    low, high = _bounds(parts, action_bounds)
    plans = [_Plan(part, trust_next) for part in parts]
    size, action_size = parts[0].sizes
    num = sum(plan.num_kept for plan in plans)
    if not num:
        raise InputError(
            f"{source}: has no usable transition; it must have two consecutive rows of an episode, "
            f"but has {sum(map(len, parts))} rows, {sum(int(part.ends.sum()) for part in parts)} "
            "of them the last of an episode."
        )
    shapes = {"observations": (num, size), "actions": (num, action_size), "rewards": (num,)}
    shapes["next_observations"] = (num, size)
    arrays = {key: checks.empty_float32(shape) for key, shape in shapes.items()}
    offset, num_outside, needs_clipping = 0, 0, False
    for plan in plans:
        rows = slice(offset, offset + plan.num_kept)
        views = {key: array[rows] for key, array in arrays.items()}
        part_clipping, part_outside = plan.fill(views, low, high, clip_actions)
        needs_clipping |= part_clipping
        num_outside += part_outside
        offset += plan.num_kept
    if needs_clipping:
        np.clip(arrays["actions"], low, high, out=arrays["actions"])
    findings = list(dict.fromkeys(finding for part in parts for finding in part.findings))
    if num_breaks := sum(plan.num_breaks for plan in plans):
        findings.append(Finding("broken_episodes", "next_observations", num_breaks))
    if num_outside:
        findings.append(Finding("clipped_actions", "actions", num_outside))
    read_only: dict[str, Any] = {key: checks.as_float32(array) for key, array in arrays.items()}
    return OfflineData(
        **read_only,
        discounts=checks.as_float32(_join([plan.discounts for plan in plans])),
        episode_starts=_starts(plans),
        episode_returns=checks.as_float32(_join([plan.returns for plan in plans])),
        action_minimum=low,
        action_maximum=high,
        source=source,
        num_rows=sum(plan.num_steps for plan in plans),
        reading_findings=tuple(findings),
    )


def _join(arrays: list[np.ndarray]) -> np.ndarray:
    return arrays[0] if len(arrays) == 1 else np.concatenate(arrays)


def _starts(plans: "list[_Plan]") -> np.ndarray:
    offsets = np.cumsum([0, *(plan.num_kept for plan in plans)])
    return _join([plan.starts + offset for plan, offset in zip(plans, offsets)])


def _check_sizes(parts: Sequence[Rows]) -> None:
    for part in parts:
        if part.sizes != parts[0].sizes:
            raise InputError(
                f"{part.name}: has observations of size {part.sizes[0]} and actions of size "
                f"{part.sizes[1]}; they must be those of {parts[0].name}, {parts[0].sizes[0]} and "
                f"{parts[0].sizes[1]}, to be one data set."
            )


def _bounds(
    parts: Sequence[Rows], given: Optional[checks.ActionBounds]
) -> tuple[np.ndarray, np.ndarray]:
    """Returns the bounds given, else those that all files record, as [A] each."""
    bounds = []
    for part in parts:
        recorded = part.action_bounds if given is None else given
        checks.check_continuous(part.name, part.actions.dtype, recorded)
        bounds.append(checks.resolve_bounds(part.name, part.sizes[1], recorded))
        if not np.array_equal(bounds[0], bounds[-1]):
            raise InputError(
                f"{part.name}: the action bounds are {bounds[-1][0].tolist()} to "
                f"{bounds[-1][1].tolist()}, those of {parts[0].name} are "
                f"{bounds[0][0].tolist()} to {bounds[0][1].tolist()}; they must be equal or given: "
                "load_dataset.action_bounds = (minimum, maximum)."
            )
    return bounds[0]


# Which rows of a column, [N] bool, go to which array.
_Targets = list[tuple[Optional[np.ndarray], np.ndarray]]


class _Plan:
    """Which rows of a file become transitions, and which observations follow them."""

    def __init__(self, part: Rows, trust_next: bool) -> None:
        self._part = part
        self.num_breaks = 0
        terminals = part.discounts == 0
        self._ends = part.ends
        self._own = part.next_observations
        if self._own is None:
            follows = ~part.ends
            follows[-1] = False
        else:
            follows = self._find_own(self._own, trust_next)
        # All rows that are steps; those that are left out are the last of their episodes.
        self._steps = np.ones(len(part), bool) if part.steps is None else part.steps
        self._keep = self._steps & (follows | terminals)
        self._stands_in = self._keep & ~follows  # Terminal: any observation may stand for s'.
        self.num_kept = int(np.count_nonzero(self._keep))
        self.num_steps = int(np.count_nonzero(self._steps))
        self.discounts = part.discounts[self._keep]
        begins = np.append(True, self._ends[:-1])
        # An episode of which no row is kept has no place among them.
        self.starts = np.flatnonzero(begins[self._keep])
        self.returns = np.zeros([0])

    def _find_own(self, own: Column, trust_next: bool) -> np.ndarray:
        """Returns which rows have a next observation of the file's own; sets where episodes end."""
        part = self._part
        missing, breaks = _compare(part.observations, own)
        if not part.knows_cuts:  # What no flag says, the observations do.
            self._ends = part.ends | breaks | missing
            return ~missing
        breaks &= ~part.ends
        if breaks.any() and not trust_next:
            _refuse_break(part, own, int(breaks.argmax()))
        if breaks.any():
            self._ends = part.ends | breaks
            self.num_breaks = int(np.count_nonzero(breaks))
        return ~(missing & part.ends)

    def fill(
        self, arrays: dict[str, np.ndarray], low: np.ndarray, high: np.ndarray, clip: bool
    ) -> tuple[bool, int]:
        """Copies the transitions into arrays of `num_kept` rows; returns as `check_actions`."""
        part, keep = self._part, self._keep
        needs_clipping, num_outside = False, 0

        def check_bounds(rows: np.ndarray, start: int, used: np.ndarray) -> None:
            nonlocal needs_clipping, num_outside
            found = checks.check_actions(part.name, rows, low, high, start, used, clip)
            needs_clipping |= found[0]
            num_outside += found[1]

        rewards = np.empty(len(part), np.float32)
        self._copy("rewards", part.rewards, keep, [(None, rewards)])
        arrays["rewards"][:] = rewards[keep]
        self.returns = _complete_returns(rewards, self._ends, self._steps)
        self._copy("actions", part.actions, keep, [(keep, arrays["actions"])], check_bounds)
        targets: _Targets = [(keep, arrays["observations"])]
        if self._own is None:
            shifted = np.append(False, keep[:-1])
            num_next = self.num_kept - int(keep[-1])
            targets.append((shifted, arrays["next_observations"][:num_next]))
            self._copy("observations", part.observations, keep | shifted, targets)
            if keep[-1]:
                arrays["next_observations"][-1] = arrays["observations"][-1]
        else:
            self._copy("observations", part.observations, keep, targets)
            used = keep & ~self._stands_in
            self._copy("next_observations", self._own, used, [(keep, arrays["next_observations"])])
            places = np.flatnonzero(self._stands_in[keep])
            arrays["next_observations"][places] = arrays["observations"][places]
        return needs_clipping, num_outside

    def _copy(
        self,
        key: str,
        column: Column,
        used: np.ndarray,
        targets: _Targets,
        check: Optional[Callable[[np.ndarray, int, np.ndarray], Any]] = None,
    ) -> None:
        """Copies the rows of each mask, None for all, to its array; those `used` must be finite.

        Each block goes to its places while it is at hand, so that the file's own array, as large as
        each of these, is never in memory.
        """
        start, filled = 0, [0] * len(targets)
        for rows in column.blocks():
            end = start + len(rows)
            checks.check_finite(self._part.name, key, rows, start, used[start:end])
            if check is not None:
                check(rows, start, used[start:end])
            for i, (mask, array) in enumerate(targets):
                if mask is None:
                    array[start:end] = rows.reshape(len(rows), *array.shape[1:])
                    continue
                chosen = np.flatnonzero(mask[start:end])
                stop = filled[i] + len(chosen)
                # In this mode `take` writes without a buffer; no index is out of range.
                out = array[filled[i] : stop]
                np.take(rows.reshape(len(rows), *out.shape[1:]), chosen, 0, out, "clip")
                filled[i] = stop
            start = end


def _compare(observations: Column, own: Column) -> tuple[np.ndarray, np.ndarray]:
    """Compares the next observations of a file with its next rows.

    Returns:
      [N] bool: the rows whose next observation is all NaN; the rows whose next observation is
      another than the next row's observation.
    """
    num_rows = observations.shape[0]
    missing, differs = np.zeros(num_rows, bool), np.zeros(num_rows, bool)
    block, start = checks.piece_rows(observations.shape), 0
    expected = None
    for rows, nexts in zip(observations.blocks(block), own.blocks(block)):
        end = start + len(rows)
        missing[start:end] = np.isnan(nexts).all(axis=1)
        expected = np.concatenate([rows[:1] if expected is None else expected, nexts[:-1]])
        with np.errstate(invalid="ignore", over="ignore"):
            far = np.abs(rows - expected) > _ROUNDING * np.maximum(1.0, np.abs(rows))
        differs[start:end] = far.any(axis=1)
        expected, start = nexts[-1:], end
    return missing, np.append(differs[1:], False)


def _refuse_break(part: Rows, own: Column, row: int) -> None:
    def read(column: Column, wanted: int) -> list[float]:
        start = 0
        for rows in column.blocks():
            if wanted < start + len(rows):
                return rows[wanted - start].tolist()
            start += len(rows)
        raise IndexError(wanted)

    raise InputError(
        f"{part.name}: next_observations has {read(own, row)} in row {row}, but observations has "
        f"{read(part.observations, row + 1)} in row {row + 1} of the same episode; they must be "
        "equal: bind load_dataset.next_observations = 'use' if rows are in no order, 'ignore' if "
        "next_observations is not to be used."
    )


def _complete_returns(rewards: np.ndarray, ends: np.ndarray, steps: np.ndarray) -> np.ndarray:
    """Returns the sums of rewards, in float64, of the episodes that end in the file.

    The rewards of rows that are no steps are not summed, nor those that are not finite, which only
    rows that are left out have.
    """
    last = np.flatnonzero(ends)
    if not last.size:
        return np.zeros([0])
    starts, num_rows = np.append(0, last[:-1] + 1), last[-1] + 1
    rewards[~(steps & np.isfinite(rewards))] = 0
    sums = np.add.reduceat(rewards[:num_rows], starts, dtype=np.float64)
    return sums[np.logical_or.reduceat(steps[:num_rows], starts)]
