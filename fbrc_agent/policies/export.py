"""Exports a policy as a SavedModel that plain TensorFlow serves: observation in, action out."""

import os
import warnings
from collections.abc import Mapping, Sequence
from typing import Any, Callable, Optional

import gin
import numpy as np
import tensorflow as tf
from tensorflow.python.framework import convert_to_constants  # There is no public name.
from tf_agents.distributions import utils as distribution_utils
from tf_agents.policies import greedy_policy, policy_saver, tf_policy
from tf_agents.trajectories import time_step as ts

from fbrc_agent.policies import model_card, policy_versions, serving_requests
from fbrc_agent.utils.errors import InputError

# Observations [B, S] and actions [B, A] to named values [B].
ValueFn = Callable[[tf.Tensor, tf.Tensor], Mapping[str, tf.Tensor]]


@gin.configurable
def export_policy(
    policy: tf_policy.TFPolicy,
    directory: str,
    version: Optional[int] = None,
    value_fn: Optional[ValueFn] = None,
    origin: Optional[Mapping[str, Any]] = None,
) -> str:
    """Writes a policy as a SavedModel in TensorFlow Serving's layout, directory/version.

    Its signatures, for any batch size B, 0 included:

    - `serving_default`: `observation` [B, S] to `action` [B, A], the mode of the policy's
      distribution.
    - `sample`: `observation` and `seed` [B] int64 to `action`, drawn from the distribution; row i
      is a function of its own observation and seed alone, whatever else is in the batch. For
      tanh-normal policies alone, such as those of `create_actor_network`.
    - `value`, if `value_fn` is given: `observation` and `action` to what it returns.

    All floating-point numbers are float32. Observations are taken as they are, beyond the range of
    the data as well; a row with a NaN or an infinity gives a row of NaN, and leaves the others as
    they are.

    The model holds TensorFlow's own ops only and the weights as constants, each once; it loads
    where neither tf_agents nor tensorflow_probability is installed. Beside it are the requests with
    which TensorFlow Serving warms up, `assets.extra/tf_serving_warmup_requests`, and the model
    card, `README.md` and `policy.json` (see `model_card`). The write is atomic.

    Args:
      policy: A stateless TF-Agents policy over one observation tensor and one action tensor.
      directory: The model's directory; its base name is the model's name.
      version: The version; by default the one after the newest, from 1 on.
      value_fn: What `value` computes, such as an agent's values.
      origin: Entries of the model card that say where the policy comes from, as JSON takes them.

    Returns:
      directory/version.

    Raises:
      InputError: If the version exists, or the policy has a state or a nest of observations.
    """

    def save(path: str, name: str) -> None:
        module, signatures = _serving_module(policy, value_fn)
        tf.saved_model.save(module, path, signatures=signatures)
        serving_requests.write_warmup(path, name)

    return _publish(policy, directory, version, origin, save)


def export_tf_agents_policy(
    policy: tf_policy.TFPolicy,
    directory: str,
    version: Optional[int] = None,
    origin: Optional[Mapping[str, Any]] = None,
) -> str:
    """Writes the greedy form of a policy as TF-Agents' `PolicySaver` does, for its pipelines.

    `SavedModelPyTFEagerPolicy(path, load_specs_from_pbtxt=True)` loads it, and an `Actor` takes
    that. Arguments, result and errors are those of `export_policy`.
    """

    def save(path: str, _: str) -> None:
        greedy = greedy_policy.GreedyPolicy(policy)
        # The paths of nests are no names of parameters, TensorFlow would warn of each.
        saver = policy_saver.PolicySaver(greedy, batch_size=None, use_nest_path_signatures=False)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Encoding a StructuredValue")
            saver.save(path)

    return _publish(policy, directory, version, origin, save)


def _publish(
    policy: tf_policy.TFPolicy,
    directory: str,
    version: Optional[int],
    origin: Optional[Mapping[str, Any]],
    save: Callable[[str, str], None],
) -> str:
    """Writes what `save(path, name of the model)` does and the model card; returns the path."""
    observation_spec = policy.time_step_spec.observation
    if policy.policy_state_spec or not isinstance(observation_spec, tf.TypeSpec):
        raise InputError(
            "Only a stateless policy over one observation tensor can be exported; this one has the "
            f"state {policy.policy_state_spec} and the observation {observation_spec}."
        )
    name = os.path.basename(os.path.abspath(directory))

    def write(path: str) -> None:
        save(path, name)
        model_card.write(path, name, policy, origin or {})

    return policy_versions.publish(directory, version, write)


def _serving_module(
    policy: tf_policy.TFPolicy, value_fn: Optional[ValueFn]
) -> tuple[tf.Module, dict[str, Any]]:
    """Returns what is to be saved, and its signatures."""
    observation = _batched(policy.time_step_spec.observation, "observation")
    action = _batched(policy.action_spec, "action")
    seed = tf.TensorSpec([None], tf.int64, name="seed")
    signatures = {}
    distribution = policy.distribution(_restart(_zeros(observation))).action
    if isinstance(distribution, distribution_utils.SquashToSpecNormal):
        # One frozen function for both signatures, so that the weights are in the file once.
        normal = _frozen(lambda observation: _normal(policy, observation), observation)
        signatures["serving_default"] = _signature(
            lambda observation: _squash(policy, normal(observation)[0]), observation
        )
        signatures["sample"] = _signature(
            lambda observation, seed: _squash(policy, _draw(normal(observation), seed)),
            observation,
            seed,
        )
    else:
        greedy = greedy_policy.GreedyPolicy(policy)
        mode = _frozen(
            lambda observation: [greedy.action(_restart(observation)).action], observation
        )
        signatures["serving_default"] = _signature(
            # A policy may leave its shape unknown, and a signature should have it.
            lambda observation: {"action": tf.ensure_shape(mode(observation)[0], action.shape)},
            observation,
        )
    if value_fn is not None:
        names = list(value_fn(_zeros(observation), _zeros(action)))
        values = _frozen(lambda s, a: list(value_fn(s, a).values()), observation, action)
        signatures["value"] = _signature(
            lambda s, a: dict(zip(names, values(s, a))), observation, action
        )
    module = tf.Module(name="policy")
    module.signature_functions = signatures
    return module, signatures


def _frozen(function: Callable[..., Any], *specs: tf.TensorSpec) -> Callable[..., Any]:
    """Returns a graph function with variables as constants, which its caller's graph inlines.

    Reading eight variables takes a third of the time of a small policy's action.
    """
    concrete = tf.function(function, input_signature=specs, autograph=False)
    return convert_to_constants.convert_variables_to_constants_v2(
        concrete.get_concrete_function(), lower_control_flow=False
    )


def _signature(function: Callable[..., Mapping[str, tf.Tensor]], *specs: tf.TensorSpec) -> Any:
    """Returns a function for a signature; a row with an input that is not finite gives NaN."""

    def masked(*inputs: tf.Tensor) -> dict[str, tf.Tensor]:
        finite = tf.constant(True)
        for tensor in inputs:
            if tensor.dtype.is_floating:
                finite &= tf.reduce_all(tf.math.is_finite(tensor), axis=1, keepdims=True)

        def mask(output: tf.Tensor) -> tf.Tensor:
            rows = finite if output.shape.rank > 1 else finite[:, 0]
            return tf.where(rows, output, tf.constant(float("nan"), output.dtype))

        return {name: mask(output) for name, output in function(*inputs).items()}

    return tf.function(masked, input_signature=specs, autograph=False)


def _batched(spec: tf.TensorSpec, name: str) -> tf.TensorSpec:
    return tf.TensorSpec([None, *spec.shape], spec.dtype, name=name)


def _zeros(spec: tf.TensorSpec) -> tf.Tensor:
    return tf.zeros([1, *spec.shape[1:]], spec.dtype)


def _restart(observation: tf.Tensor) -> ts.TimeStep:
    # `ts.restart` wants a batch size known while tracing.
    batch = tf.shape(observation)[:1]
    return ts.TimeStep(
        step_type=tf.fill(batch, ts.StepType.FIRST),
        reward=tf.zeros(batch),
        discount=tf.ones(batch),
        observation=observation,
    )


def _normal(policy: tf_policy.TFPolicy, observation: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Returns mean and standard deviation [B, A] of the normal below the tanh."""
    normal = policy.distribution(_restart(observation)).action.input_distribution
    # `loc`, not `mode()`, which broadcasts it to itself by a dozen ops.
    return normal.loc, normal.stddev()


def _draw(normal: Sequence[tf.Tensor], seed: tf.Tensor) -> tf.Tensor:
    """Returns a draw [B, A] of what `_normal` returned; row i has the key (seed[i], 0)."""
    mean, deviation = normal
    size = mean.shape[1:]
    noise = tf.map_fn(
        lambda row_seed: tf.random.stateless_normal(size, [row_seed, 0], dtype=mean.dtype),
        seed,
        fn_output_signature=tf.TensorSpec(size, mean.dtype),
    )
    return mean + deviation * noise


def _squash(policy: tf_policy.TFPolicy, x: tf.Tensor) -> dict[str, tf.Tensor]:
    """Returns middle + half-width * tanh(x) of the action's bounds, as `SquashToSpecNormal`."""
    low, high = policy.action_spec.minimum, policy.action_spec.maximum
    middle, half = (high + low) / 2, (high - low) / 2
    action = middle + half * tf.tanh(x)
    action.set_shape([None, *policy.action_spec.shape])
    if np.all(middle + half <= high) and np.all(middle - half >= low):
        return {"action": action}  # It cannot leave the box, not by rounding either.
    return {"action": tf.clip_by_value(action, low, high)}
