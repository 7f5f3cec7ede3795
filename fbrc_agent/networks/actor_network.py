"""The authors' actor: a tanh-squashed diagonal normal."""

import functools
from collections.abc import Sequence
from typing import Callable

import gin
import tensorflow as tf
from tf_agents.agents.sac import tanh_normal_projection_network
from tf_agents.networks import actor_distribution_network, network
from tf_agents.typing import types

from fbrc_agent.networks import initializers
from fbrc_agent.utils import checks


class _ProjectionNetwork(tanh_normal_projection_network.TanhNormalProjectionNetwork):
    """TF-Agents' tanh-normal projection with a chosen initializer of its one layer."""

    def __init__(
        self,
        sample_spec: types.TensorSpec,
        std_transform: Callable[[types.Tensor], types.Tensor],
        name: str = "TanhNormalProjectionNetwork",
    ):
        super().__init__(sample_spec, std_transform=std_transform, name=name)
        self._projection_layer.kernel_initializer = initializers.OutputKernelInitializer()


@gin.configurable
def create_actor_network(
    input_tensor_spec: types.NestedTensorSpec,
    output_tensor_spec: types.NestedTensorSpec,
    fc_layer_params: Sequence[int] = (256, 256, 256),
    log_std_bounds: tuple[float, float] = (-20.0, 2.0),
    name: str = "ActorNetwork",
) -> network.Network:
    """Returns the authors' actor pi(a|s) as a TF-Agents `ActorDistributionNetwork`.

    ReLU layers with orthogonal kernels of gain sqrt(2); a linear layer of gain 0.01 gives the mean
    and the log standard deviation of a normal before tanh, scaled to the action box.

    Args:
      input_tensor_spec: Spec of the observations.
      output_tensor_spec: Bounded spec of the actions.
      fc_layer_params: Units of the hidden layers.
      log_std_bounds: Lower and upper clip of the log standard deviation, before tanh.
      name: Name of the network.

    Raises:
      ValueError: If units or bounds are not as above.
    """
    checks.check_units("fc_layer_params", fc_layer_params)
    checks.check_bounds("log_std_bounds", log_std_bounds)

    def standard_deviation(log_std):
        return tf.exp(tf.clip_by_value(log_std, *log_std_bounds))

    return actor_distribution_network.ActorDistributionNetwork(
        input_tensor_spec,
        output_tensor_spec,
        fc_layer_params=fc_layer_params,
        kernel_initializer=initializers.HiddenKernelInitializer,
        continuous_projection_net=functools.partial(
            _ProjectionNetwork, std_transform=standard_deviation
        ),
        name=name,
    )
