"""Q = O + log mu: the critic wrapper, and the authors' offset network O."""

from collections.abc import Mapping, Sequence
from typing import Optional

import gin
from tf_agents.agents.ddpg import critic_network
from tf_agents.networks import network
from tf_agents.typing import types
from tf_agents.utils import common

from fbrc_agent.networks import initializers, network_checks
from fbrc_agent.utils import checks


@gin.configurable
class BehaviorRegularizedCriticNetwork(network.Network):
    """Q(s, a) = O(s, a) + log mu(a|s)  (Kostrikov et al. 2021, eq. 5).

    A critic network over (observation, action) for `SacAgent`-like agents. Only the offset O is
    learned: the variables of this network are the offset network's alone, so that a target copy
    shares none of them, and `copy` copies O while it shares mu. An object that owns this network
    must therefore track mu itself for its checkpoints, as `FbrcAgent` does.
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
        network_checks.check_stateless(behavior_network)
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

    def call(self, inputs, step_type=(), network_state=(), training=False, log_mu=None):
        """Returns Q of shape `[B]` (or `[B, T]`) and the offset network's next state.

        Args:
          inputs: (observation, action).
          step_type: Step types.
          network_state: State of the offset network.
          training: Whether the call is of a training step.
          log_mu: log mu(a|s), where it is known already: two critics then take one evaluation.
        """
        offset, network_state = self._offset_network(
            inputs, step_type=step_type, network_state=network_state, training=training
        )
        if log_mu is None:
            observation, action = inputs
            behavior, _ = self.behavior_network(
                observation, step_type=step_type, network_state=(), training=False
            )
            log_mu = common.log_probability(behavior, action, self.input_tensor_spec[1])
        return offset + log_mu, network_state


def make_critics(
    given: Mapping[str, network.Network], behavior_network: network.Network, has_offset: bool
) -> dict[str, network.Network]:
    """Returns Q = O + log mu of each network O; Q itself if it is given, or without the offset.

    Args:
      given: The networks by the names of an agent's arguments.
      behavior_network: mu.
      has_offset: Whether Q is O + log mu.

    Raises:
      ValueError: If Q = O + log mu is given with another mu, or without the offset.
    """
    made = {}
    for argument, net in given.items():
        is_wrapped = learned(net) is not net
        if is_wrapped and not has_offset:
            raise ValueError(
                f"{argument} '{net.name}' is O + log mu, but the agent's regularization has no "
                "offset; give the network that it wraps, or regularization='offset'."
            )
        if is_wrapped and net.behavior_network is not behavior_network:
            raise ValueError(
                f"{argument} wraps the behavior network '{net.behavior_network.name}', not the "
                f"agent's behavior_network '{behavior_network.name}'; give both the same object."
            )
        if has_offset and not is_wrapped:
            net = BehaviorRegularizedCriticNetwork(net, behavior_network, name=argument)
        made[argument] = net
    return made


def learned(critic: network.Network) -> network.Network:
    """Returns the part of a critic that is learned: O of Q = O + log mu, else the critic itself."""
    if isinstance(critic, BehaviorRegularizedCriticNetwork):
        return critic.offset_network
    return critic


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

    Raises:
      ValueError: If `fc_layer_params` are not integers of 1 or more.
    """
    checks.check_units("fc_layer_params", fc_layer_params)
    return critic_network.CriticNetwork(
        input_tensor_spec,
        joint_fc_layer_params=fc_layer_params,
        kernel_initializer=initializers.HiddenKernelInitializer,
        last_kernel_initializer=initializers.OutputKernelInitializer,
        name=name,
    )
