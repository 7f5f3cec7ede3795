"""Checks of arguments: each refuses a value by its name, and says what would be right."""

import math
from collections.abc import Sequence
from typing import Any, Optional

import tensorflow as tf

from fbrc_agent.utils.errors import InputError


def is_number(value: Any) -> bool:
    """Whether a value is a finite int or float."""
    is_real = isinstance(value, (int, float)) and not isinstance(value, bool)
    return is_real and math.isfinite(value)


def is_integer(value: Any, low: int) -> bool:
    """Whether a value is an int of `low` or more."""
    return isinstance(value, int) and not isinstance(value, bool) and value >= low


def check_number(
    name: str,
    value: Any,
    low: Optional[float] = None,
    high: Optional[float] = None,
    above: Optional[float] = None,
    optional: bool = False,
) -> None:
    """Refuses an argument that is no finite number, or not in its range, with an InputError.

    NumPy's and TensorFlow's scalars are numbers; a tensor of a graph, whose value is not known, is
    accepted.

    Args:
      name: Name of the argument.
      value: Its value.
      low: Smallest value.
      high: Largest value.
      above: What the value must exceed.
      optional: Whether it may be None.
    """
    number = _scalar(value)
    if (optional and value is None) or number is _UNKNOWN:
        return
    if (
        is_number(number)
        and (low is None or number >= low)
        and (high is None or number <= high)
        and (above is None or number > above)
    ):
        return
    wanted = "a number" if high is not None or optional else "a finite number"
    if low is not None:
        wanted += f" of {low} or more" if high is None else f" from {low} to {high}"
    if above is not None:
        wanted += f" above {above}" if high is None else f" above {above} and up to {high}"
    wanted += ", or None" if optional else ""
    raise InputError(f"{name} is {number!r}; it must be {wanted}.")


def check_integer(
    name: str, value: Any, low: int, high: Optional[int] = None, optional: bool = False
) -> None:
    """Refuses an argument that is no integer, or not in its range, with an InputError."""
    number = _scalar(value)
    if (optional and value is None) or number is _UNKNOWN:
        return
    if not is_integer(number, low) or (high is not None and number > high):
        wanted = f"of {low} or more" if high is None else f"from {low} to {high}"
        wanted += ", or None" if optional else ""
        raise InputError(f"{name} is {number!r}; it must be an integer {wanted}.")


def check_flag(name: str, value: Any) -> None:
    """Refuses an argument that is neither True nor False with an InputError."""
    if not isinstance(value, bool):
        raise InputError(f"{name} is {value!r}; it must be True or False.")


def check_choice(name: str, value: Any, choices: Sequence[str]) -> None:
    """Refuses an argument that is none of `choices` with an InputError."""
    if value not in choices:
        wanted = ", ".join(map(repr, choices[:-1])) + f" or {choices[-1]!r}"
        raise InputError(f"{name} is {value!r}; it must be {wanted}.")


def check_units(name: str, value: Any) -> None:
    """Refuses an argument that is no list of layers' units with an InputError."""
    is_list = isinstance(value, (list, tuple))
    if not is_list or not all(is_integer(_scalar(units), 1) for units in value):
        raise InputError(
            f"{name} is {value!r}; it must be a tuple of integers of 1 or more, such as (256, 256)."
        )


def check_bounds(name: str, value: Any) -> None:
    """Refuses an argument that is no pair (lower, upper) of numbers with an InputError."""
    is_pair = isinstance(value, (list, tuple)) and len(value) == 2
    if not is_pair or not all(map(is_number, value)) or value[0] >= value[1]:
        raise InputError(
            f"{name} is {value!r}; it must be two finite numbers, the lower one first, such as "
            "(-20.0, 2.0)."
        )


def check_optimizer(name: str, value: Any, optional: bool = False) -> None:
    """Refuses what is no optimizer, or has a rate that is not above 0, with an InputError."""
    if value is None and optional:
        return
    kinds = (
        tf.keras.optimizers.Optimizer,
        tf.keras.optimizers.legacy.Optimizer,
        tf.compat.v1.train.Optimizer,
    )
    if not isinstance(value, kinds):
        raise InputError(f"{name} is {value!r}; it must be an optimizer, such as @Adam() in gin.")
    rate = getattr(value, "learning_rate", None)
    if isinstance(rate, (tf.Tensor, tf.Variable, float, int)):
        check_number(f"The learning rate of {name}", rate, above=0)


_UNKNOWN = object()


def _scalar(value: Any) -> Any:
    """Returns the Python number of a scalar of NumPy or TensorFlow, `_UNKNOWN` in a graph."""
    if not hasattr(value, "dtype") or value.shape != ():
        return value
    try:
        return value.numpy().item() if hasattr(value, "numpy") else value.item()
    except (NotImplementedError, AttributeError):  # How TensorFlow says that it is symbolic.
        return _UNKNOWN
