"""Q = O + log mu: the critic wrapper, and the authors' offset network O."""

from collections.abc import Sequence
from typing import Optional

import gin
import tensorflow as tf
from tf_agents.agents.ddpg import critic_network
from tf_agents.networks import network
from tf_agents.specs import tensor_spec
from tf_agents.trajectories import time_step as ts
from tf_agents.typing import types
from tf_agents.utils import common

from fbrc_agent import initializers


@gin.configurable
class BehaviorRegularizedCriticNetwork(network.Network):
    """Q(s, a) = O(s, a) + log mu(a|s)  (Kostrikov et al. 2021, eq. 5).

    A critic network over (observation, action) for `SacAgent`-like agents. Only the offset O is
    learned: the variables of this network are the offset network's alone, so that a target copy
    shares none of them, and `copy` copies O while it shares mu. Whoever owns this network must
    therefore track mu itself for its checkpoints, as `FbrcAgent` does.
    """

    def __init__(
        self,
        offset_network: network.Network,
        behavior_network: network.Network,
        name: Optional[str] = None,
    ):
        """Creates the network.

        Args:
          offset_network: O, a network over (observation, action) with outputs of shape `[B]`; its
            `input_tensor_spec` is this network's.
          behavior_network: mu, a stateless network over observations that returns distributions
            over actions.
          name: Name of the network.

        Raises:
          ValueError: If `behavior_network` has a state.
        """
        super().__init__(
            input_tensor_spec=offset_network.input_tensor_spec,
            state_spec=offset_network.state_spec,
            name=name or "BehaviorRegularizedCriticNetwork",
        )
        if behavior_network.state_spec:
            raise ValueError(
                f"behavior_network '{behavior_network.name}' has the state spec "
                f"{behavior_network.state_spec}; a behavior network must be stateless: mu(a|s)."
            )
        self._offset_network = offset_network
        # Keras would track an attribute that is a network, and count its variables as ours.
        self._get_behavior_network = lambda: behavior_network

    @property
    def offset_network(self) -> network.Network:
        """O, the learned part."""
        return self._offset_network

    @property
    def behavior_network(self) -> network.Network:
        """mu, shared by all copies and not part of `variables`."""
        return self._get_behavior_network()

    def copy(self, **kwargs) -> "BehaviorRegularizedCriticNetwork":
        """Returns a critic with a copy of the offset network and the same behavior network.

        Args:
          **kwargs: `name` of the copy. Other arguments go to the offset network's `copy`.
        """
        name = kwargs.pop("name", self.name)
        offset_network = self._offset_network.copy(name=f"{name}Offset", **kwargs)
        return type(self)(offset_network, self.behavior_network, name=name)

    def call(self, inputs, step_type=(), network_state=(), training=False):
        """Returns Q of shape `[B]` (or `[B, T]`) and the offset network's next state."""
        observation, action = inputs
        offset, network_state = self._offset_network(
            inputs, step_type=step_type, network_state=network_state, training=training
        )
        behavior, _ = self.behavior_network(observation, step_type=step_type, training=False)
        return offset + behavior_log_prob(
            behavior, action, self.input_tensor_spec[1]
        ), network_state


def behavior_log_prob(
    behavior: types.NestedDistribution, action: types.NestedTensor, action_spec
) -> types.Tensor:
    """Returns log mu(a|s) in nats, summed over the action's dimensions and its nest, `[B]`."""
    return common.log_probability(behavior, action, action_spec)


def check_behavior_network(
    behavior_network: network.Network,
    observation_spec: types.NestedTensorSpec,
    action_spec: types.NestedTensorSpec,
) -> None:
    """Builds mu and checks that it gives distributions over the action spec.

    Raises:
      ValueError: If it does not; the message shows both sides.
    """
    behavior_network.create_variables(observation_spec)
    observation = tensor_spec.sample_spec_nest(observation_spec, outer_dims=(1,))
    step_type = tf.fill((1,), ts.StepType.FIRST)
    behavior, _ = behavior_network(observation, step_type=step_type)
    tf.nest.assert_same_structure(behavior, action_spec)
    for distribution, action in zip(tf.nest.flatten(behavior), tf.nest.flatten(action_spec)):
        given = distribution.batch_shape + distribution.event_shape, distribution.dtype
        if given != ([1] + action.shape, action.dtype):
            raise ValueError(
                f"behavior_network '{behavior_network.name}' must return distributions over "
                f"actions of shape {action.shape} and type {action.dtype.name}, as the action spec "
                f"has it, but it returned {distribution} for one observation."
            )


@gin.configurable
def create_offset_network(
    input_tensor_spec: types.NestedTensorSpec,
    fc_layer_params: Sequence[int] = (256, 256, 256),
    name: str = "OffsetNetwork",
) -> network.Network:
    """Returns the authors' offset network O(s, a) as a TF-Agents `CriticNetwork`.

    ReLU layers on the concatenated observation and action, orthogonal kernels with gain sqrt(2),
    and a linear output with gain 0.01.

    Args:
      input_tensor_spec: (observation spec, action spec), each one tensor of rank 1.
      fc_layer_params: Units of the hidden layers.
      name: Name of the network.
    """
    return critic_network.CriticNetwork(
        input_tensor_spec,
        joint_fc_layer_params=fc_layer_params,
        kernel_initializer=initializers.HiddenKernelInitializer,
        last_kernel_initializer=initializers.OutputKernelInitializer,
        name=name,
    )
