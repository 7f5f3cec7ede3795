"""Checks of values that gin, a flag or a caller gives."""

import math
from typing import Any

from fbrc_agent.utils.errors import InputError


def is_number(value: Any) -> bool:
    """Whether a value is a finite int or float."""
    is_real = isinstance(value, (int, float)) and not isinstance(value, bool)
    return is_real and math.isfinite(value)


def is_integer(value: Any, low: int) -> bool:
    """Whether a value is an int of `low` or more."""
    return isinstance(value, int) and not isinstance(value, bool) and value >= low


def check(name: str, value: Any, is_right: bool, wanted: str) -> None:
    """Refuses a value in the words that all refusals have.

    Args:
      name: What has the value, for example 'FbrcAgent.gamma'.
      value: The value.
      is_right: Whether it may be used.
      wanted: What it must be, for example 'a number from 0 to 1'.

    Raises:
      InputError: If it may not.
    """
    if not is_right:
        raise InputError(f"{name} is {value!r}; it must be {wanted}.")


def check_count(name: str, value: Any, low: int = 0) -> None:
    """Refuses what is not an integer of `low` or more.

    Raises:
      InputError: If it is not.
    """
    check(name, value, is_integer(value, low), f"an integer of {low} or more")
