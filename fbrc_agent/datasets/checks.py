"""Checks of arrays that a user gave; each error names the array, the row and the value."""

import math
from collections.abc import Iterator, Mapping
from typing import Any, Optional

import numpy as np

from fbrc_agent.utils.errors import InputError

ActionBounds = tuple[Any, Any]

# The arrays that are [rows, size]; the others are [rows].
MATRICES = ("observations", "actions", "next_observations")

# Actions this far outside their bounds (relative to bounds above 1) are float32 rounding; they are
# clipped. Anything farther is an error.
_BOUND_TOLERANCE = 1e-6

# Arrays are checked in pieces of about this size, which stay in the cache of a core.
PIECE_BYTES = 2**20

# TensorFlow shares the memory of an array that begins at a multiple of this; it copies others.
_ALIGNMENT = 64


def reason(error: BaseException) -> str:
    """Returns what an error of a library says, on one line of at most 200 characters."""
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return lines[0] if len(lines[0]) <= 200 else f"{lines[0][:200]}..."


def to_array(source: str, key: str, value: Any) -> np.ndarray:
    """Returns an array of real numbers, of rank 2 if `key` is one of `MATRICES`, else of rank 1."""
    try:
        array = np.asarray(value)
    except ValueError as error:
        raise InputError(f"{source}: {key} is not an array ({reason(error)}).") from error
    check_kind_and_rank(source, key, array)
    return array if key in MATRICES else array.reshape(len(array))


def check_kind_and_rank(source: str, key: str, array: Any) -> None:
    """Refuses all but numbers of `to_array`'s rank; a column [N, 1] passes for a vector."""
    if array.dtype.kind not in "biuf":
        raise InputError(f"{source}: {key} has type {array.dtype}; it must hold real numbers.")
    shape = array.shape
    if shape is None:  # HDF5's null dataspace.
        raise InputError(f"{source}: {key} has a type but no values; it must hold rows.")
    rank = 2 if key in MATRICES else 1
    if len(shape) != rank and not (rank == 1 and len(shape) == 2 and shape[1] == 1):
        wanted = "[rows, size]" if rank == 2 else "[rows]"
        raise InputError(f"{source}: {key} has shape {tuple(shape)}; it must be {wanted}.")
    if 0 in shape[1:]:
        raise InputError(f"{source}: {key} has shape {tuple(shape)}; its size must not be 0.")


def check_lengths(source: str, arrays: Mapping[str, Any]) -> None:
    """Refuses arrays of different numbers of rows, or of none."""
    lengths = {key: array.shape[0] for key, array in arrays.items()}
    if len(set(lengths.values())) > 1:
        listed = ", ".join(f"{key} {length}" for key, length in lengths.items())
        raise InputError(
            f"{source}: arrays have different numbers of rows ({listed}); they must be equal."
        )
    if not all(lengths.values()):
        raise InputError(f"{source}: is empty; it must have at least one transition.")


def check_rows(
    source: str, key: str, array: np.ndarray, wrong: np.ndarray, wanted: str, first_row: int = 0
) -> None:
    """Refuses what is wrong, an element or a row; `first_row` is the first one's in its file."""
    if wrong.any():
        index = np.unravel_index(int(wrong.argmax()), wrong.shape)
        value = array[index]
        raise InputError(
            f"{source}: {key} has {value.tolist() if value.ndim else value} in row "
            f"{first_row + int(index[0])}; {wanted}."
        )


def check_finite(
    source: str,
    key: str,
    array: np.ndarray,
    first_row: int = 0,
    used: Optional[np.ndarray] = None,
) -> None:
    """Refuses NaN and infinity in rows `used`, by default all; `first_row` as of `check_rows`."""
    wanted = "every value must be a finite float32: fill it in, or drop the row's episode"
    for start, piece in pieces(array):
        wrong = ~np.isfinite(piece)
        if wrong.any():
            if used is not None:
                wrong[~used[start : start + len(piece)]] = False
            check_rows(source, key, piece, wrong, wanted, first_row + start)


def check_flags(source: str, key: str, array: np.ndarray, first_row: int = 0) -> None:
    """Refuses all but 0 and 1, of any type; `first_row` as of `check_rows`."""
    wanted = "every value must be 0 or 1, or of type bool"
    check_rows(source, key, array, (array != 0) & (array != 1), wanted, first_row)


def resolve_bounds(
    source: str, size: int, bounds: Optional[ActionBounds]
) -> tuple[np.ndarray, np.ndarray]:
    """Returns action bounds as two arrays [A]; None stands for (-1, 1)."""
    try:
        minimum, maximum = (-1.0, 1.0) if bounds is None else bounds
        minimum, maximum = (
            as_float32(np.broadcast_to(np.asarray(bound, np.float64), [size]))
            for bound in (minimum, maximum)
        )
    except (TypeError, ValueError) as error:
        raise InputError(
            f"{source}: action_bounds is {bounds!r}; it must be (minimum, maximum), "
            f"each a number or {size} numbers."
        ) from error
    if not np.isfinite([minimum, maximum]).all() or not (minimum < maximum).all():
        raise InputError(
            f"{source}: action bounds are {minimum.tolist()} and {maximum.tolist()}; "
            "each minimum must be finite and below its maximum."
        )
    return minimum, maximum


def check_limit(source: str, limit: Any) -> None:
    """Refuses a time limit that is neither None nor a positive integer."""
    is_integer = isinstance(limit, (int, np.integer)) and not isinstance(limit, bool)
    if limit is not None and (not is_integer or limit < 1):
        raise InputError(
            f"{source}: max_episode_steps is {limit!r}; it must be a positive integer."
        )


def check_continuous(source: str, dtype: np.dtype, bounds: Optional[ActionBounds]) -> None:
    """Refuses actions of an integer type, unless bounds say that they are amounts."""
    if dtype.kind in "biu" and bounds is None:
        raise InputError(
            f"{source}: actions has type {dtype}, as discrete actions have, which are not "
            "supported; actions must be amounts, of a float type, or have bounds: "
            "load_dataset.action_bounds = (minimum, maximum)."
        )


def check_actions(
    source: str,
    actions: np.ndarray,
    minimum: np.ndarray,
    maximum: np.ndarray,
    first_row: int = 0,
    used: Optional[np.ndarray] = None,
    clip: bool = False,
) -> tuple[bool, int]:
    """Refuses actions outside their bounds, unless `clip`, in the rows `used`, by default all.

    Returns:
      Whether any action has to be clipped, if only for its rounding, and the number of rows that
      are outside by more than rounding.
    """
    needs_clipping, num_outside = False, 0
    low = minimum - _BOUND_TOLERANCE * np.maximum(1.0, np.abs(minimum))
    high = maximum + _BOUND_TOLERANCE * np.maximum(1.0, np.abs(maximum))
    wanted = (
        f"every action must be inside the bounds {minimum.tolist()} to {maximum.tolist()}; pass "
        "action_bounds=(minimum, maximum) if these are not the bounds of the environment, or "
        "load_dataset.clip_actions = True"
    )
    for start, piece in pieces(actions):
        if piece.min() >= minimum.max() and piece.max() <= maximum.min():
            continue  # The usual case, in a tenth of the time of what follows.
        outside = ((piece < low) | (piece > high)).any(axis=1)
        if used is not None:
            outside &= used[start : start + len(piece)]
        if not clip:
            check_rows(source, "actions", piece, outside, wanted, first_row + start)
        num_outside += int(np.count_nonzero(outside))
        needs_clipping |= bool(((piece < minimum) | (piece > maximum)).any())
    return needs_clipping, num_outside


def check_episode_starts(source: str, value: Any, num_transitions: int) -> np.ndarray:
    """Returns the rows that begin an episode as [E] int64; refuses all but 0 < ... < N."""
    array = to_array(source, "episode_starts", value)
    if array.dtype.kind not in "iu" or not len(array) or array[0] != 0:
        raise InputError(
            f"{source}: episode_starts is {array.tolist()[:3]}...; it must be numbers of rows, of "
            "an integer type, and the first must be 0."
        )
    starts = np.append(array.astype(np.int64), num_transitions)
    descends = np.diff(starts) <= 0
    if descends.any():
        place = int(descends.argmax())
        raise InputError(
            f"{source}: episode_starts has {starts[place]} in place {place} and "
            f"{starts[place + 1]} next; they must ascend and be below the number of transitions, "
            f"{num_transitions}."
        )
    return starts[:-1]


def piece_rows(shape: tuple[int, ...], itemsize: int = 4) -> int:
    """Returns the number of rows of about `PIECE_BYTES`."""
    return max(1, PIECE_BYTES // max(1, itemsize * math.prod(shape[1:])))


def pieces(array: np.ndarray) -> Iterator[tuple[int, np.ndarray]]:
    """Yields (number of the first row, rows) of consecutive pieces of about `PIECE_BYTES`."""
    rows = piece_rows(array.shape, array.itemsize)
    for start in range(0, len(array), rows):
        yield start, array[start : start + rows]


def empty_float32(shape: tuple[int, ...]) -> np.ndarray:
    """Returns an uninitialized array whose memory TensorFlow can share."""
    size = 4 * math.prod(shape)
    memory = np.empty(size + _ALIGNMENT, np.uint8)
    start = -memory.ctypes.data % _ALIGNMENT
    return memory[start : start + size].view(np.float32).reshape(shape)


def as_float32(array: np.ndarray) -> np.ndarray:
    """Returns a read-only view, or a copy where the array is not row-major float32."""
    if array.dtype == np.float32 and array.flags.c_contiguous:
        view = array.view()
    else:
        view = empty_float32(array.shape)
        with np.errstate(over="ignore"):  # Too large a value becomes Inf, which is refused.
            view[...] = array
    view.flags.writeable = False
    return view
