"""Density 1 everywhere: with log mu = 0 a Fisher-BRC agent can be compared with others."""

import tensorflow as tf
import tensorflow_probability as tfp
from tf_agents.networks import network
from tf_agents.utils import nest_utils


class UnitDistribution(tfp.distributions.Distribution):
    """Density 1 everywhere, of any batch shape: log mu = 0 with gradient 0."""

    def __init__(self, sizes, event_shape, dtype):
        parameters = dict(locals())
        self._sizes, self._shape = sizes, event_shape
        super().__init__(
            dtype=dtype,
            reparameterization_type=tfp.distributions.NOT_REPARAMETERIZED,
            validate_args=False,
            allow_nan_stats=True,
            parameters=parameters,
        )

    def _batch_shape(self):
        return tf.TensorShape(self._sizes)

    def _event_shape(self):
        return tf.TensorShape(self._shape)

    def _log_prob(self, value):
        return 0.0 * tf.reduce_sum(value, axis=list(range(len(self._sizes), value.shape.rank)))


class UnitBehaviorNetwork(network.Network):
    """Gives a `UnitDistribution` for every action of a nest."""

    def __init__(self, input_tensor_spec, action_spec, name="UnitBehaviorNetwork"):
        super().__init__(input_tensor_spec, state_spec=(), name=name)
        self._action_spec = action_spec

    def call(self, observation, step_type=(), network_state=(), training=False):
        outer = nest_utils.get_outer_shape(observation, self.input_tensor_spec)
        outer_rank = outer.shape[0]
        sizes = tf.nest.flatten(observation)[0].shape[:outer_rank]
        distributions = tf.nest.map_structure(
            lambda spec: UnitDistribution(sizes, spec.shape, spec.dtype), self._action_spec
        )
        return distributions, network_state
