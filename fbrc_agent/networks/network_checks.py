"""What the agents ask of specs, networks and batches.

Networks are checked once, in the constructors; of a batch only the static shapes are looked at.
"""

from collections.abc import Mapping
from typing import Any, Optional

import tensorflow as tf
from tf_agents.networks import network
from tf_agents.specs import tensor_spec
from tf_agents.trajectories import time_step as ts
from tf_agents.trajectories import trajectory
from tf_agents.typing import types
from tf_agents.utils import nest_utils


def checked_specs(
    time_step_spec: ts.TimeStep, action_spec: types.NestedTensorSpec
) -> tuple[ts.TimeStep, types.NestedTensorSpec]:
    """Returns specs, of arrays or tensors, as those of tensors.

    Raises:
      ValueError: If they are without an observation or without bounds of the actions.
    """
    if not isinstance(time_step_spec, ts.TimeStep):
        raise ValueError(
            f"time_step_spec is {time_step_spec}; it must be a TimeStep of specs, as "
            "`ts.time_step_spec(observation_spec)` makes it."
        )
    for spec in tf.nest.flatten(action_spec):
        if not hasattr(spec, "minimum") or not hasattr(spec, "maximum"):
            raise ValueError(
                f"action_spec holds {spec}; it must be a nest of BoundedTensorSpec, the box that "
                "mu and the policy live on."
            )
    return tensor_spec.from_spec((time_step_spec, action_spec))


def check_input_spec(argument: str, net: network.Network, wanted: types.NestedTensorSpec) -> None:
    """Checks that a network takes what the agent's specs give.

    A network may leave keys of a dict observation unused; one without a spec takes anything.

    Args:
      argument: Name of the agent's argument that holds the network.
      net: The network.
      wanted: Spec of what the agent gives it.

    Raises:
      ValueError: If it takes something else, the message shows both sides; or is no network.
    """
    if not isinstance(net, network.Network):
        raise ValueError(
            f"{argument} is {net}; it must be a TF-Agents network: "
            "`tf_agents.networks.sequential.Sequential` makes one of Keras layers and models."
        )
    taken = net.input_tensor_spec
    if taken is None:
        return
    try:
        given = nest_utils.prune_extra_keys(taken, wanted)
        tf.nest.assert_same_structure(taken, given)
        pairs = zip(tf.nest.flatten(taken), tf.nest.flatten(given))
        fits = all(t.dtype == g.dtype and t.shape.is_compatible_with(g.shape) for t, g in pairs)
    except (TypeError, ValueError):  # raised for different nests
        fits = False
    if not fits:
        raise ValueError(
            f"{argument} '{net.name}' takes inputs of the spec {_shapes(taken)}, but the agent's "
            f"specs give {_shapes(wanted)}."
        )


def check_behavior_network(
    behavior_network: network.Network,
    observation_spec: types.NestedTensorSpec,
    action_spec: types.NestedTensorSpec,
) -> None:
    """Builds mu and checks that it gives distributions over the action spec.

    Raises:
      ValueError: If it does not, or has a state; the message shows both sides.
    """
    check_input_spec("behavior_network", behavior_network, observation_spec)
    check_stateless(behavior_network)
    behavior_network.create_variables(observation_spec)
    observation, step_type = _sample(observation_spec, (1,))
    behavior, _ = behavior_network(observation, step_type=step_type, network_state=())
    if not _are_distributions_over(action_spec, behavior):
        raise ValueError(
            f"behavior_network '{behavior_network.name}' returns {behavior} for one observation; "
            f"it must return distributions over actions of {_shapes(action_spec)}, the action spec."
        )


def check_stateless(behavior_network: network.Network) -> None:
    """Refuses a recurrent mu with a ValueError."""
    if behavior_network.state_spec:
        raise ValueError(
            f"behavior_network '{behavior_network.name}' has the state spec "
            f"{behavior_network.state_spec}; it must be stateless: mu(a|s)."
        )


def check_values(argument: str, net: network.Network, spec: types.NestedTensorSpec) -> None:
    """Checks that a critic gives one value per example (and time step, if it has a state).

    Values of shape `[B, 1]` would broadcast with rewards of shape `[B]` to `[B, B]`, and train on.

    Args:
      argument: Name of the agent's argument that holds the network.
      net: The network over (observation, action).
      spec: Specs of (observation, action).

    Raises:
      ValueError: If its output has another shape, or is not floating.
    """
    outer = (3, 2) if net.state_spec else (3,)
    inputs, step_type = _sample(spec, outer)
    values, _ = net(inputs, step_type=step_type)
    if not tf.is_tensor(values) or tuple(values.shape) != outer or not values.dtype.is_floating:
        found = f"{tuple(values.shape)} {values.dtype.name}" if tf.is_tensor(values) else values
        raise ValueError(
            f"{argument} '{net.name}' returns {found} for inputs with the outer dimensions "
            f"{outer}; it must return one floating value per example, shape {outer}: a last layer "
            "of one unit needs its dimension removed."
        )


def has_weights(net: network.Network) -> bool:
    """Returns whether all layers of a network are built."""
    try:
        return bool(net.trainable_weights)
    except ValueError:  # how TF-Agents' networks say that they are not built
        return False


def check_critics(
    critics: Mapping[str, network.Network], critic_spec: types.NestedTensorSpec
) -> None:
    """Checks what an agent is given for its critics, by the names of its arguments.

    Raises:
      ValueError: If one does not take the specs, or is both the first and the second critic.
    """
    for argument, net in critics.items():
        check_input_spec(argument, net, critic_spec)
    critic = critics["critic_network"]
    is_same = critic is critics.get("critic_network_2")
    if is_same:
        raise ValueError(
            f"critic_network_2 and critic_network are the same network, '{critic.name}'; give "
            "critic_network_2 weights of its own, or leave it out for a copy that has."
        )


def check_critics_differ(critic: network.Network, copy: network.Network) -> None:
    """Refuses a second critic that equals the first: both would stay equal, their minimum idle.

    `Network.copy` of a TF-Agents `Sequential` copies the weights of layers that are built already,
    as those of a functional Keras model always are.

    Raises:
      ValueError: If all trainable variables of the two are equal.
    """
    pairs = list(zip(critic.trainable_variables, copy.trainable_variables))
    if pairs and all(bool(tf.reduce_all(v == c)) for v, c in pairs):
        raise ValueError(
            f"critic_network '{critic.name}' has weights already, and its copy came out with the "
            "same ones, so that the two critics would never differ; give critic_network_2, a "
            "network made in the same way with weights of its own."
        )


def check_batch(transition: trajectory.Transition, weights: Optional[types.Tensor]) -> None:
    """Refuses fields with other numbers of examples: size 1 would broadcast, and train on.

    Args:
      transition: What `AsTransition` made of the experience.
      weights: The weights of the examples, or None.

    Raises:
      ValueError: If static batch sizes differ, or `weights` is neither a scalar nor `[B]`.
    """
    time_steps, policy_steps, next_time_steps = transition
    fields = {
        "observation": time_steps.observation,
        "action": policy_steps.action,
        "reward": next_time_steps.reward,
        "discount": next_time_steps.discount,
        "next observation": next_time_steps.observation,
    }
    sizes = {name: [t.shape[0] for t in tf.nest.flatten(nest)] for name, nest in fields.items()}
    known = set().union(*sizes.values()) - {None}
    if len(known) > 1:
        found = ", ".join(f"{name} {of_field}" for name, of_field in sizes.items())
        raise ValueError(
            f"Fields of the experience hold {found}; they must hold the same number of examples."
        )
    shape = tf.TensorShape([]) if weights is None else tf.convert_to_tensor(weights).shape
    if not (shape.is_compatible_with([]) or shape.is_compatible_with([*known] or [None])):
        raise ValueError(
            f"weights has the shape {shape}; it must be a scalar or of shape {[*known] or ['B']}, "
            "one for each example of the experience."
        )


def _are_distributions_over(action_spec: types.NestedTensorSpec, behavior: Any) -> bool:
    """Returns whether a nest holds a distribution for each action, outer dimension 1."""
    try:
        tf.nest.assert_same_structure(behavior, action_spec)
    except (TypeError, ValueError):
        return False
    return all(
        hasattr(distribution, "log_prob")
        and _sample_shape(distribution) == [1] + action.shape
        and distribution.dtype == action.dtype
        for distribution, action in zip(tf.nest.flatten(behavior), tf.nest.flatten(action_spec))
    )


def _sample_shape(distribution: Any) -> tf.TensorShape:
    """Returns the shape of one sample; `SquashToSpecNormal` does not know its event shape."""
    shape = distribution.batch_shape + distribution.event_shape
    return distribution.sample().shape if shape.rank is None else shape


def _sample(spec: types.NestedTensorSpec, outer_dims: tuple[int, ...]) -> tuple[Any, tf.Tensor]:
    """Returns random inputs and their step types."""
    step_type = tf.fill(outer_dims, ts.StepType.FIRST)
    return tensor_spec.sample_spec_nest(spec, outer_dims=outer_dims), step_type


def _shapes(spec: types.NestedTensorSpec) -> Any:
    """Returns a nest of readable shapes and types."""
    return tf.nest.map_structure(lambda s: f"shape {s.shape} {s.dtype.name}", spec)
