"""Observations that are dicts of arrays, and bounds of actions, as environments describe them."""

from collections.abc import Mapping
from typing import Any, Optional

import numpy as np

from fbrc_agent.datasets import checks
from fbrc_agent.utils.errors import InputError


def observation_keys(
    source: str, columns: Optional[Mapping[str, Any]]
) -> Optional[tuple[str, ...]]:
    """Returns the keys of `load_dataset.columns` for observations that are dicts."""
    if not columns:
        return None
    keys: Any = columns.get("observations") if isinstance(columns, Mapping) else None
    keys = (keys,) if isinstance(keys, str) else keys
    is_list = isinstance(keys, (list, tuple)) and all(isinstance(key, str) for key in keys)
    if set(columns) != {"observations"} or not is_list:
        raise InputError(
            f"{source}: load_dataset.columns is {columns!r}; for this format it must name the keys "
            "of observations that are dicts and nothing else, such as "
            "{'observations': ('observation', 'desired_goal')}."
        )
    return tuple(keys)


def join(place: str, observations: Any, keys: Optional[tuple[str, ...]]) -> np.ndarray:
    """Returns [N, S], of a dict the values of `keys` side by side."""
    if isinstance(observations, Mapping):
        if keys is None or not set(keys) <= set(observations):
            listed = ", ".join(map(str, observations))
            raise InputError(
                f"{place}: observations are dicts of {listed}; name which of these to join: "
                f"load_dataset.columns = {{'observations': {list(observations)}}}."
            )
        parts = [checks.to_array(place, "observations", observations[key]) for key in keys]
        checks.check_lengths(place, dict(zip(keys, parts)))
        return np.concatenate(parts, axis=1)
    if isinstance(observations, tuple):
        raise InputError(
            f"{place}: observations are tuples, which are not supported; they must be arrays of "
            "[size], or dicts of these."
        )
    return checks.to_array(place, "observations", observations)


def box_bounds(source: str, space: Any) -> Optional[checks.ActionBounds]:
    """Returns the bounds of a Gymnasium box or of a TF-Agents spec, None if they are not finite."""
    if not hasattr(space, "shape") or not np.issubdtype(_dtype(space), np.floating):
        raise InputError(
            f"{source}: actions are {space}, which is not supported; discrete actions and dicts of "
            "actions are not, they must be one array of a float type."
        )
    low: Any = getattr(space, "low", getattr(space, "minimum", None))
    high: Any = getattr(space, "high", getattr(space, "maximum", None))
    if low is None or not (np.isfinite(low).all() and np.isfinite(high).all()):
        return None
    if (np.abs([low, high]) > 1e30).any():  # How TF-Agents writes that there are none.
        return None
    return low, high


def _dtype(space: Any) -> Any:
    dtype = getattr(space, "dtype", None)
    return getattr(dtype, "as_numpy_dtype", dtype) or object
