"""Checks of arrays that a user gave, each with an error that names the array, row and value."""

from collections.abc import Mapping
from typing import Any, Optional

import numpy as np

from fbrc_agent.errors import InputError

ActionBounds = tuple[Any, Any]

# The arrays that are [rows, size]; the others are [rows].
MATRICES = ("observations", "actions", "next_observations")

# Actions this far outside their bounds (relative to bounds above 1) are float32 rounding; they are
# clipped. Anything farther is an error.
_BOUND_TOLERANCE = 1e-6


def to_array(source: str, key: str, value: Any) -> np.ndarray:
    """An array of real numbers, of rank 2 if `key` is one of `MATRICES`, else of rank 1."""
    try:
        array = np.asarray(value)
    except ValueError as error:
        raise InputError(f"{source}: {key} is not an array ({error}).") from error
    rank = 2 if key in MATRICES else 1
    check_kind_and_rank(source, key, array, rank)
    return array if rank == 2 else array.reshape(len(array))


def check_kind_and_rank(source: str, key: str, array: Any, rank: int) -> None:
    """Real numbers of rank 1 or 2; a column [N, 1] passes for a vector, as it does in D4RL."""
    if array.dtype.kind not in "biuf":
        raise InputError(f"{source}: {key} has type {array.dtype}; it must hold real numbers.")
    shape = array.shape
    if len(shape) != rank and not (rank == 1 and len(shape) == 2 and shape[1] == 1):
        wanted = "[rows, size]" if rank == 2 else "[rows]"
        raise InputError(f"{source}: {key} has shape {tuple(shape)}; it must be {wanted}.")
    if 0 in shape[1:]:
        raise InputError(f"{source}: {key} has shape {tuple(shape)}; its size must not be 0.")


def check_lengths(source: str, arrays: Mapping[str, Any]) -> None:
    """As many rows in each array, and at least one."""
    lengths = {key: array.shape[0] for key, array in arrays.items()}
    if len(set(lengths.values())) > 1:
        listed = ", ".join(f"{key} {length}" for key, length in lengths.items())
        raise InputError(
            f"{source}: arrays have different numbers of rows ({listed}); they must be equal."
        )
    if not all(lengths.values()):
        raise InputError(f"{source}: is empty; it must have at least one transition.")


def check_finite(source: str, key: str, array: np.ndarray) -> None:
    """No NaN or Inf."""
    finite = np.isfinite(array)
    if not finite.all():
        index = np.unravel_index(int(finite.argmin()), array.shape)
        raise InputError(
            f"{source}: {key} has {array[index]} in row {int(index[0])}; every value "
            "must be a finite float32."
        )


def resolve_bounds(
    source: str, size: int, bounds: Optional[ActionBounds]
) -> tuple[np.ndarray, np.ndarray]:
    """Action bounds as two arrays [A]; None stands for (-1, 1)."""
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
    if not (
        np.isfinite(minimum).all() and np.isfinite(maximum).all() and (minimum < maximum).all()
    ):
        raise InputError(
            f"{source}: action bounds are {minimum.tolist()} and {maximum.tolist()}; "
            "each minimum must be finite and below its maximum."
        )
    return minimum, maximum


def clip_actions(
    source: str, actions: np.ndarray, minimum: np.ndarray, maximum: np.ndarray
) -> np.ndarray:
    """Actions inside their bounds: clips what is rounding, refuses what is more."""
    if (actions >= minimum).all() and (actions <= maximum).all():
        return actions
    low = minimum - _BOUND_TOLERANCE * np.maximum(1.0, np.abs(minimum))
    high = maximum + _BOUND_TOLERANCE * np.maximum(1.0, np.abs(maximum))
    outside = ((actions < low) | (actions > high)).any(axis=1)
    if outside.any():
        row = int(outside.argmax())
        raise InputError(
            f"{source}: actions has {actions[row].tolist()} in row {row}, outside the "
            f"bounds {minimum.tolist()} to {maximum.tolist()}; pass action_bounds="
            "(minimum, maximum) if these are not the bounds of the environment."
        )
    return np.clip(actions, minimum, maximum)


def as_float32(array: np.ndarray) -> np.ndarray:
    """A read-only, row-major float32 view, or copy where the array is not that already."""
    with np.errstate(over="ignore"):  # Too large a value becomes Inf, which the checks refuse.
        view = np.ascontiguousarray(array, np.float32).view()
    view.flags.writeable = False
    return view
