"""Checks of what gin binds, before a run writes or fits anything.

The second stage of a run begins hours after the first; what it would stumble over is said at once.
"""

import contextlib
import math
import re
from collections.abc import Iterator, Sequence
from typing import Any, Callable, Optional

import gin
import tensorflow as tf
from tf_agents.agents import tf_agent

from fbrc_agent.utils.errors import InputError

_MACRO = "gin.macro"


def is_number(value: Any) -> bool:
    """A finite int or float."""
    is_real = isinstance(value, (int, float)) and not isinstance(value, bool)
    return is_real and math.isfinite(value)


def is_integer(value: Any, low: int) -> bool:
    """An int of `low` or more."""
    return isinstance(value, int) and not isinstance(value, bool) and value >= low


def _is_units(value: Any) -> bool:
    return isinstance(value, (list, tuple)) and all(is_integer(units, 1) for units in value)


def _is_range(value: Any) -> bool:
    return (
        isinstance(value, (list, tuple))
        and len(value) == 2
        and all(map(is_number, value))
        and value[0] < value[1]
    )


_Rule = tuple[Callable[[Any], bool], str]

_FINITE: _Rule = (is_number, "a finite number")
_NOT_NEGATIVE: _Rule = (lambda v: is_number(v) and v >= 0, "a finite number of 0 or more")
_FLAG: _Rule = (lambda v: isinstance(v, bool), "True or False")
_COUNT: _Rule = (lambda v: is_integer(v, 1), "an integer of 1 or more")
_UNITS: _Rule = (_is_units, "a tuple of integers of 1 or more, such as (256, 256)")
_RANGE: _Rule = (_is_range, "two finite numbers, the lower one first, such as (-20.0, 2.0)")

_RATE: _Rule = (lambda v: is_number(v) and v > 0, "a finite number above 0")
_DISCOUNT: _Rule = (lambda v: is_number(v) and 0 <= v <= 1, "a number from 0 to 1")
_SHARE: _Rule = (lambda v: is_number(v) and 0 < v <= 1, "a number above 0 and up to 1")

_RULES: dict[str, _Rule] = {
    "make_sac_agent.hidden_units": _UNITS,
    "make_sac_agent.learning_rate": _RATE,
    "make_sac_agent.gamma": _DISCOUNT,
    "make_sac_agent.target_update_tau": _SHARE,
    "MixtureBehaviorNetwork.num_components": _COUNT,
    "MixtureBehaviorNetwork.fc_layer_params": _UNITS,
    "MixtureBehaviorNetwork.joint": _FLAG,
    "MixtureBehaviorNetwork.log_std_bounds": _RANGE,
    "create_offset_network.fc_layer_params": _UNITS,
    "create_actor_network.fc_layer_params": _UNITS,
    "create_actor_network.log_std_bounds": _RANGE,
    "create_fbrc_agent.target_entropy_per_dimension": _FINITE,
    "BehaviorAgent.initial_log_alpha": _FINITE,
    "BehaviorAgent.target_entropy": (lambda v: v is None or is_number(v), "a number or None"),
    "FbrcAgent.gamma": _DISCOUNT,
    "FbrcAgent.target_update_tau": _SHARE,
    "FbrcAgent.target_update_period": _COUNT,
    "FbrcAgent.gradient_penalty_weight": _NOT_NEGATIVE,
    "FbrcAgent.reward_bonus": _FINITE,
    "FbrcAgent.reward_scale_factor": _FINITE,
    "FbrcAgent.initial_log_alpha": _FINITE,
    "FbrcAgent.include_critic_entropy_term": _FLAG,
    "FbrcAgent.use_log_alpha_in_alpha_loss": _FLAG,
    "FbrcAgent.share_actor_sample": _FLAG,
    "FbrcAgent.share_critic_pass": _FLAG,
    "FbrcAgent.jit_compile": _FLAG,
    "FbrcAgent.actor_loss_weight": _NOT_NEGATIVE,
    "FbrcAgent.critic_loss_weight": _NOT_NEGATIVE,
    "FbrcAgent.alpha_loss_weight": _NOT_NEGATIVE,
    "FbrcAgent.gradient_clipping": (
        lambda v: v is None or (is_number(v) and v > 0),
        "a number above 0, or None",
    ),
}


def check_bindings() -> None:
    """Checks the numbers that gin binds to the networks and agents of `train` and `collect`.

    Raises:
        InputError: If one is out of its range or of another type.
    """
    for name, (is_right, wanted) in _RULES.items():
        try:
            value = gin.query_parameter(name)
        except ValueError:
            continue  # Not bound.
        if isinstance(value, gin.config.ConfigurableReference):
            if not value.evaluate or value.configurable.selector != _MACRO:
                continue  # What a user's own function returns.
            value = value.scoped_configurable_fn()
        if not is_right(value):
            raise InputError(f"{name} is {value!r}; it must be {wanted}.")


def check_optimizers(agent: tf_agent.TFAgent, *attributes: str, optional: str = "") -> None:
    """Checks the optimizers of an agent and the learning rates that are numbers.

    Args:
        agent: The agent.
        *attributes: Names of the arguments that hold its optimizers.
        optional: The one of them that may be None.

    Raises:
        InputError: If one is no optimizer, or a rate is not above 0.
    """
    kinds = (
        tf.keras.optimizers.Optimizer,
        tf.keras.optimizers.legacy.Optimizer,
        tf.compat.v1.train.Optimizer,
    )
    for attribute in attributes:
        name = f"{type(agent).__name__}.{attribute}"
        optimizer = getattr(agent, f"_{attribute}")
        if optimizer is None and attribute == optional:
            continue
        if not isinstance(optimizer, kinds):
            raise InputError(f"{name} is {optimizer!r}; it must be an optimizer, such as @Adam().")
        rate = getattr(optimizer, "learning_rate", None)
        if isinstance(rate, (tf.Tensor, tf.Variable, float, int)):
            number = float(tf.convert_to_tensor(rate))  # It may be mirrored.
            if not (math.isfinite(number) and number > 0):
                raise InputError(
                    f"The learning rate of {name} is {number:g}; it must be a number above 0."
                )


@contextlib.contextmanager
def construction() -> Iterator[None]:
    """Names the configurable in what a constructor that gin calls refuses.

    Raises:
        InputError: In place of what the body raises.
    """
    try:
        yield
    except InputError:
        raise
    except (TypeError, ValueError, AttributeError, LookupError, RuntimeError) as error:
        reason, *calls = str(error).split("\n  In call to configurable ")
        match = re.match(r"'(.*?)' .*?(?: in scope '(.*)')?$", calls[0]) if calls else None
        what = "The agent"
        if match:
            what = f"{match.group(2)}/{match.group(1)}" if match.group(2) else match.group(1)
        reason = " ".join(reason.split()).rstrip(".")
        raise InputError(
            f"{what} cannot be made with the gin bindings that it has ({reason}); mend those of "
            "its arguments."
        ) from error


def check_number(
    name: str,
    value: Any,
    low: Optional[float] = None,
    high: Optional[float] = None,
    above: Optional[float] = None,
    optional: bool = False,
) -> None:
    """Refuses an argument that is no finite number, or not in its range, with a ValueError.

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
    raise ValueError(f"{name} is {number!r}; it must be {wanted}.")


def check_integer(
    name: str, value: Any, low: int, high: Optional[int] = None, optional: bool = False
) -> None:
    """Refuses an argument that is no integer, or not in its range, with a ValueError."""
    number = _scalar(value)
    if (optional and value is None) or number is _UNKNOWN:
        return
    if not is_integer(number, low) or (high is not None and number > high):
        wanted = f"of {low} or more" if high is None else f"from {low} to {high}"
        wanted += ", or None" if optional else ""
        raise ValueError(f"{name} is {number!r}; it must be an integer {wanted}.")


def check_flag(name: str, value: Any) -> None:
    """Refuses an argument that is neither True nor False with a ValueError."""
    if not isinstance(value, bool):
        raise ValueError(f"{name} is {value!r}; it must be True or False.")


def check_choice(name: str, value: Any, choices: Sequence[str]) -> None:
    """Refuses an argument that is none of `choices` with a ValueError."""
    if value not in choices:
        wanted = ", ".join(map(repr, choices[:-1])) + f" or {choices[-1]!r}"
        raise ValueError(f"{name} is {value!r}; it must be {wanted}.")


def check_units(name: str, value: Any) -> None:
    """Refuses an argument that is no list of layers' units with a ValueError."""
    is_list = isinstance(value, (list, tuple))
    if not is_list or not all(is_integer(_scalar(units), 1) for units in value):
        raise ValueError(
            f"{name} is {value!r}; it must be a tuple of integers of 1 or more, such as (256, 256)."
        )


def check_bounds(name: str, value: Any) -> None:
    """Refuses an argument that is no pair (lower, upper) of numbers with a ValueError."""
    is_pair = isinstance(value, (list, tuple)) and len(value) == 2
    if not is_pair or not all(map(is_number, value)) or value[0] >= value[1]:
        raise ValueError(
            f"{name} is {value!r}; it must be two finite numbers, the lower one first, such as "
            "(-20.0, 2.0)."
        )


def check_optimizer(name: str, value: Any, optional: bool = False) -> None:
    """Refuses an argument that is no optimizer, or whose rate is not above 0, with a ValueError."""
    if value is None and optional:
        return
    kinds = (
        tf.keras.optimizers.Optimizer,
        tf.keras.optimizers.legacy.Optimizer,
        tf.compat.v1.train.Optimizer,
    )
    if not isinstance(value, kinds):
        raise ValueError(f"{name} is {value!r}; it must be an optimizer, such as @Adam() in gin.")
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
