"""Twin critics Q_i = O_i + log mu: their values, and the penalty on their gradients in the action.

Kostrikov et al. 2021 (https://arxiv.org/abs/2103.08050), equations 5 and 7, and figure 4.
"""

import functools
from collections.abc import Sequence
from typing import Callable, Optional

import tensorflow as tf
from tf_agents.networks import network
from tf_agents.trajectories import time_step as ts
from tf_agents.typing import types

from fbrc_agent.networks import action_gradient, critic_network, relu_critic

REGULARIZATIONS = ("offset", "gradient_penalty", "fisher")

# Each twin's value at an action, `[B]`, and its gradient in the action.
Slopes = Sequence[tuple[tf.Tensor, types.NestedTensor]]


class TwinCritics:
    """Q_i(s, a) = O_i(s, a) + log mu(a|s), i = 1, 2, or what a regularization has in its place.

    What the networks are, and the penalty R_i, whose sum over i is weighed by lambda:

        "offset":            O_i, R_i = ||grad_a O_i(s, a)||^2;
        "gradient_penalty":  Q_i, R_i = ||grad_a Q_i(s, a)||^2;
        "fisher":            Q_i, R_i = ||grad_a Q_i(s, a) - grad_a log mu(a|s)||^2.

    Values are of shape `[B]`, or `[B, T]` of recurrent networks.
    """

    def __init__(
        self,
        networks: Sequence[network.Network],
        behavior_network: network.Network,
        action_spec: types.NestedTensorSpec,
        regularization: str,
    ):
        """Creates the twins.

        Args:
          networks: The two critics, or their wrappers.
          behavior_network: mu.
          action_spec: A nest of specs of the actions.
          regularization: One of `REGULARIZATIONS`.
        """
        self.networks = [critic_network.learned(net) for net in networks]
        self.has_offset = regularization == "offset"
        self._has_goal = regularization == "fisher"
        self._behavior_network = behavior_network
        self._action_spec = action_spec

    @property
    def losses(self) -> list[tf.Tensor]:
        """The networks' own regularization losses."""
        return [loss for net in self.networks for loss in net.losses]

    def behavior(self, time_steps: ts.TimeStep) -> types.NestedDistribution:
        """Returns mu(.|s)."""
        return critic_network.call_behavior_network(
            self._behavior_network, time_steps.observation, time_steps.step_type
        )

    def log_mu(self, behavior: types.NestedDistribution, actions: types.NestedTensor) -> tf.Tensor:
        """Returns log mu(a|s)."""
        return critic_network.behavior_log_prob(behavior, actions, self._action_spec)

    def outputs(
        self, time_steps: ts.TimeStep, actions: types.NestedTensor, training: bool = False
    ) -> list[tf.Tensor]:
        """Returns each network's value of (s, a)."""
        return [self._output(net, time_steps, actions, training) for net in self.networks]

    def minimum(
        self,
        outputs: Sequence[tf.Tensor],
        behavior: types.NestedDistribution,
        actions: types.NestedTensor,
    ) -> tf.Tensor:
        """Returns min_i Q_i(s, a) of the networks' values of (s, a)."""
        minimum = tf.minimum(*outputs)
        return minimum + self.log_mu(behavior, actions) if self.has_offset else minimum

    def slopes(self, time_steps: ts.TimeStep, actions: types.NestedTensor) -> Slopes:
        """Returns the twins' values and gradients in training, to be differentiated once more."""
        outer_shape = time_steps.step_type.shape

        def value_and_slope(net: network.Network) -> tuple[tf.Tensor, types.NestedTensor]:
            layers = relu_critic.dense_layers(net)
            if layers:
                return relu_critic.value_and_gradient(layers, time_steps.observation, actions)
            output = functools.partial(self._output, net, time_steps, training=True)
            with action_gradient.constant_relu_masks(net):
                return action_gradient.value_and_gradient(output, actions, outer_shape)

        return [value_and_slope(net) for net in self.networks]

    def penalty(
        self,
        slopes: Slopes,
        behavior: types.NestedDistribution,
        actions: types.NestedTensor,
        outer_shape: tf.TensorShape,
    ) -> tf.Tensor:
        """Returns sum_i R_i of the gradients of `slopes`, `[B]` or `[B, T]`."""
        goal = self._goal(behavior, actions, outer_shape)

        def squared_norm(slope: types.NestedTensor) -> tf.Tensor:
            if goal is not None:
                slope = tf.nest.map_structure(tf.subtract, slope, goal)
            return action_gradient.inner(slope, slope, outer_shape.rank)

        return tf.add_n([squared_norm(slope) for _, slope in slopes])

    def gradient_norms(
        self,
        time_steps: ts.TimeStep,
        behavior: types.NestedDistribution,
        actions: types.NestedTensor,
    ) -> tuple[list[tf.Tensor], tf.Tensor]:
        """Returns the norm of each network's gradient in the action, and that of log mu's."""

        def norm(function: Callable[[types.NestedTensor], tf.Tensor]) -> tf.Tensor:
            outer_shape = time_steps.step_type.shape
            return tf.sqrt(action_gradient.squared_action_gradient(function, actions, outer_shape))

        norms = [norm(functools.partial(self._output, net, time_steps)) for net in self.networks]
        return norms, norm(functools.partial(self.log_mu, behavior))

    def _output(
        self,
        net: network.Network,
        time_steps: ts.TimeStep,
        actions: types.NestedTensor,
        training: bool = False,
    ) -> tf.Tensor:
        inputs = (time_steps.observation, actions)
        return net(inputs, step_type=time_steps.step_type, training=training)[0]

    def _goal(
        self,
        behavior: types.NestedDistribution,
        actions: types.NestedTensor,
        outer_shape: tf.TensorShape,
    ) -> Optional[types.NestedTensor]:
        """Returns what the penalty draws the gradients to: grad_a log mu; None for 0."""
        if not self._has_goal:
            return None
        _, slope = action_gradient.value_and_gradient(
            functools.partial(self.log_mu, behavior), actions, outer_shape
        )
        return tf.nest.map_structure(tf.stop_gradient, slope)


def tangents(slopes: Slopes, actions: types.NestedTensor) -> list[tf.Tensor]:
    """Returns each twin's value at `actions`, where `slopes` was taken, from `slopes` alone.

    Its gradient in the actions is that of `slopes`; no other flows.
    """

    def tangent(value: tf.Tensor, slope: types.NestedTensor) -> tf.Tensor:
        constants = tf.nest.map_structure(tf.stop_gradient, (actions, value, slope))
        offset = tf.nest.map_structure(tf.subtract, actions, constants[0])
        return constants[1] + action_gradient.inner(constants[2], offset, value.shape.rank)

    return [tangent(value, slope) for value, slope in slopes]
