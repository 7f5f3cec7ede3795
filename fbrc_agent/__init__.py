"""Fisher-BRC, an offline reinforcement-learning agent for TF-Agents.

Importing the package imports nothing else; each public name loads its module on first use, so that
reading data needs no TensorFlow and training needs no simulator.
"""

import importlib
import importlib.util
import os
from typing import Any

__version__ = "0.1.0"

# TF-Agents is written for Keras 2, which later TensorFlows have from tf-keras if they are asked for
# it when they are first imported.
if importlib.util.find_spec("tf_keras") is not None:
    os.environ.setdefault("TF_USE_LEGACY_KERAS", "1")

# `fbrc_agent.fbrc_agent` stays the module: `from fbrc_agent import fbrc_agent` is TF-Agents' idiom.
_HOME = {
    "BehaviorAgent": "agents.behavior",
    "BehaviorRegularizedCriticNetwork": "networks.critic_network",
    "FbrcAgent": "agents.fbrc",
    "FbrcLossInfo": "agents.fbrc",
    "GymnasiumEnvironment": "environments.gymnasium_environment",
    "InputError": "utils.errors",
    "MixtureBehaviorNetwork": "networks.behavior_network",
    "OfflineData": "datasets.offline_data",
    "create_actor_network": "networks.actor_network",
    "create_offset_network": "networks.critic_network",
    "export_policy": "policies.export",
    "load_behavior_network": "agents.behavior",
    "load_dataset": "datasets.sources",
    "make_tf_dataset": "datasets.batches",
    "policy_action_fn": "evaluation.rollouts",
    "save_d4rl_hdf5": "datasets.hdf5",
    "train": "training.one_call",
}

__all__ = sorted(_HOME)


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'fbrc_agent' has no attribute {name!r}")
    return getattr(importlib.import_module(f"fbrc_agent.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOME])
