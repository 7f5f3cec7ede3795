"""Fisher-BRC, an offline reinforcement-learning agent for TF-Agents.

Importing the package imports nothing else; each public name loads its module on first use, so that
reading data needs no TensorFlow and training needs no simulator.
"""

import importlib
from typing import Any

__version__ = "0.1.0"

# `fbrc_agent.fbrc_agent` stays the module: `from fbrc_agent import fbrc_agent` is TF-Agents' idiom.
_HOME = {
    "BehaviorAgent": "behavior_agent",
    "BehaviorRegularizedCriticNetwork": "critic_network",
    "FbrcAgent": "fbrc_agent",
    "FbrcLossInfo": "fbrc_agent",
    "GymnasiumEnvironment": "environments",
    "InputError": "errors",
    "MixtureBehaviorNetwork": "behavior_network",
    "OfflineData": "offline_data",
    "create_actor_network": "actor_network",
    "create_offset_network": "critic_network",
    "export_policy": "export",
    "load_behavior_network": "fitted_behavior",
    "load_dataset": "offline_data",
    "make_tf_dataset": "dataset",
    "policy_action_fn": "evaluate",
    "save_d4rl_hdf5": "offline_data",
}

__all__ = sorted(_HOME)


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'fbrc_agent' has no attribute {name!r}")
    return getattr(importlib.import_module(f"fbrc_agent.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOME])
