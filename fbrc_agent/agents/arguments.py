"""The arguments that `SacAgent` and `OfflineSacAgent` take: names and ranges."""

import inspect
from collections.abc import Mapping
from typing import Any

from tf_agents.agents.sac import sac_agent

from fbrc_agent.utils import checks

_NUMBERS: dict[str, dict[str, Any]] = {
    "actor_loss_weight": {"low": 0},
    "critic_loss_weight": {"low": 0},
    "alpha_loss_weight": {"low": 0},
    "target_update_tau": {"above": 0, "high": 1},
    "gamma": {"low": 0, "high": 1},
    "reward_scale_factor": {},
    "reward_bonus": {},
    "initial_log_alpha": {},
    "target_entropy": {"optional": True},
    "gradient_clipping": {"above": 0, "optional": True},
    "actor_average_decay": {"low": 0, "high": 1, "optional": True},
}
_INTEGERS: dict[str, dict[str, Any]] = {
    "target_update_period": {"low": 1},
    "seed": {"low": -(2**31), "high": 2**31 - 1, "optional": True},
}
_OWN_FLAGS = ("include_critic_entropy_term", "share_actor_sample", "jit_compile")
# All of them, for a subclass to pass on.
NAMES = (
    *list(inspect.signature(sac_agent.SacAgent.__init__).parameters)[1:],
    *("reward_bonus", "actor_average_decay", "seed"),
    *_OWN_FLAGS,
)


def check(arguments: Mapping[str, Any]) -> None:
    """Refuses values of the wrong type or out of range with a ValueError; ignores other names.

    An optimizer may be None, for an agent that is not trained.
    """
    for name, value in arguments.items():
        if name in _NUMBERS:
            checks.check_number(name, value, **_NUMBERS[name])
        elif name in _INTEGERS:
            checks.check_integer(name, value, **_INTEGERS[name])
        elif name in (*_OWN_FLAGS, "use_log_alpha_in_alpha_loss"):
            checks.check_flag(name, value)
        elif name.endswith("_optimizer"):
            checks.check_optimizer(name, value, optional=True)
        elif name == "td_errors_loss_fn" and not callable(value):
            raise ValueError(
                f"td_errors_loss_fn is {value!r}; it must be a function of (target, prediction), "
                "such as tf.math.squared_difference."
            )
