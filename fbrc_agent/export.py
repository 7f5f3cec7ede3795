"""Exports a policy as a SavedModel that plain TensorFlow serves: observation in, action out."""

import os
import shutil

import gin
import tensorflow as tf
from tf_agents.policies import greedy_policy, tf_policy
from tf_agents.trajectories import time_step as ts

from fbrc_agent.errors import InputError


@gin.configurable
def export_policy(policy: tf_policy.TFPolicy, directory: str) -> str:
    """Writes the greedy form of a policy as a SavedModel.

    Its signature `serving_default` takes `observation` [None, S] float32 and returns `action`
    [None, A]: the mode of the policy's distribution. It holds TensorFlow's own ops only and loads
    where neither tf_agents nor tensorflow_probability is installed. The model is written beside
    `directory` and renamed.

    Args:
      policy: A stateless TF-Agents policy over one observation tensor and one action tensor.
      directory: Where the model goes, for TensorFlow Serving a number below the model's name; it
        must not exist.

    Returns:
      `directory`.

    Raises:
      InputError: If `directory` exists, or the policy has a state or a nest of observations.
    """
    if os.path.exists(directory):
        raise InputError(f"{directory} exists; give the export a directory of its own.")
    module = _policy_module(policy)
    temporary = f"{directory}.{os.getpid()}.tmp"
    os.makedirs(os.path.dirname(os.path.abspath(directory)), exist_ok=True)
    try:
        tf.saved_model.save(module, temporary, signatures={"serving_default": module.action})
        os.rename(temporary, directory)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return directory


def _policy_module(policy: tf_policy.TFPolicy) -> tf.Module:
    """Returns a module with the policy's variables and one function, `action`."""
    observation_spec = policy.time_step_spec.observation
    if policy.policy_state_spec or not isinstance(observation_spec, tf.TypeSpec):
        raise InputError(
            "Only a stateless policy over one observation tensor can be exported; this one has the "
            f"state {policy.policy_state_spec} and the observation {observation_spec}."
        )
    greedy = greedy_policy.GreedyPolicy(policy)
    shape = [None, *observation_spec.shape]
    signature = tf.TensorSpec(shape, observation_spec.dtype, name="observation")

    @tf.function(input_signature=[signature], autograph=False)
    def action(observation: tf.Tensor) -> dict[str, tf.Tensor]:
        # `ts.restart` wants a batch size known while tracing.
        batch = tf.shape(observation)[:1]
        time_step = ts.TimeStep(
            step_type=tf.fill(batch, ts.StepType.FIRST),
            reward=tf.zeros(batch),
            discount=tf.ones(batch),
            observation=observation,
        )
        return {"action": greedy.action(time_step).action}

    module = tf.Module(name="policy")
    module.policy_variables = list(policy.variables())
    module.action = action
    return module
