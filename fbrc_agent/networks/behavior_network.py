"""mu(a|s), the behavior policy that made the data: a mixture of tanh-squashed normals."""

from collections.abc import Sequence
from typing import Any, Callable, Optional

import gin
import numpy as np
import tensorflow as tf
import tensorflow_probability as tfp
from tf_agents.networks import encoding_network, network
from tf_agents.networks import utils as network_utils
from tf_agents.typing import types
from tf_agents.utils import nest_utils

from fbrc_agent.networks import initializers
from fbrc_agent.utils import checks

tfb = tfp.bijectors
tfd = tfp.distributions

# Actions are kept this far (relative to half the width of the action box) inside the box before
# their density is taken: at the bounds tanh has no inverse. The authors' code clips by the same.
BOUNDARY_MARGIN = 1e-6


class SquashedMixture(tfp.distributions.TransformedDistribution):
    """A mixture of normals, squashed by tanh and scaled to the box `[low, high]`.

    With `u = atanh((a - mid) / half)`, `mid` and `half` the middle and half the width of the box,

        log p(a) = log sum_k w_k N(u; m_k, s_k^2) - log|da/du|.

    The tanh stands outside of the mixture: one inverse per action instead of one per component, the
    same density. Two things are added to TFP's transformed distribution. `log_prob` first moves the
    action `BOUNDARY_MARGIN` inside the box, so that the density and its gradient are finite on the
    closed box (beyond the margin the density is constant, its gradient 0). `mode` is the
    squashed location of the component at which the mixture of normals is highest, exact when
    components do not overlap; this is the squashed mode, as TF-Agents' `SquashToSpecNormal` has it.

    `mixture` is a `MixtureSameFamily` of multivariate normals (one joint mixture), or an
    `Independent` of `MixtureSameFamily` of normals (one mixture for each action dimension).
    """

    def __init__(self, mixture, low, high, name: str = "SquashedMixture"):
        """Creates the distribution.

        Args:
          mixture: The distribution of `u`; event shape `[A]`.
          low: Lower bounds of the actions, shape `[A]`.
          high: Upper bounds of the actions, shape `[A]`.
          name: Prefix of the ops.
        """
        parameters = dict(locals())
        low = tf.convert_to_tensor(low, dtype=mixture.dtype)
        high = tf.convert_to_tensor(high, dtype=mixture.dtype)
        middle, half_width = (high + low) / 2.0, (high - low) / 2.0
        self._to_box = tfb.Chain([tfb.Shift(middle), tfb.Scale(half_width)])
        self._log_half_width = tf.math.log(half_width)
        super().__init__(
            distribution=mixture,
            bijector=tfb.Chain([self._to_box, tfb.Tanh()]),
            name=name,
        )
        self._parameters = parameters

    @classmethod
    def _parameter_properties(cls, dtype, num_classes=None):
        return {
            "mixture": tfp.util.BatchedComponentProperties(),
            "low": tfp.util.ParameterProperties(event_ndims=1),
            "high": tfp.util.ParameterProperties(event_ndims=1),
        }

    def _log_prob(self, value):
        # The margin is taken in [-1, 1]: next to large bounds it would be below float resolution.
        limit = 1.0 - BOUNDARY_MARGIN
        squashed = tf.clip_by_value(self._to_box.inverse(value), -limit, limit)
        log_above, log_below = tf.math.log1p(squashed), tf.math.log1p(-squashed)
        u = (log_above - log_below) / 2.0  # atanh
        log_det = self._log_half_width + log_above + log_below  # da/du = half (1 - tanh(u)^2)
        return self.distribution.log_prob(u) - tf.reduce_sum(log_det, axis=-1)

    def _mode(self):
        return self.bijector.forward(_highest_component_location(self.distribution))


def _highest_component_location(mixture) -> tf.Tensor:
    """Returns the component location with the highest density under the mixture, `[..., A]`."""
    joint = isinstance(mixture, tfd.MixtureSameFamily)
    mixture = mixture if joint else mixture.distribution
    locations = mixture.components_distribution.mean()  # [..., K, A] joint, else [..., A, K]
    component_axis = -2 if joint else -1
    candidates = tf.unstack(locations, axis=component_axis)
    scores = tf.stack([mixture.log_prob(c) for c in candidates], axis=-1)
    best = tf.one_hot(tf.argmax(scores, axis=-1), len(candidates), dtype=locations.dtype)
    best = best[..., tf.newaxis] if joint else best
    return tf.reduce_sum(best * locations, axis=component_axis)


@gin.configurable
class MixtureBehaviorNetwork(network.Network):
    """Maps observations to mu(a|s), a `SquashedMixture` over the action box.

    Kostrikov et al. 2021, section 4.3: a mixture density network. The defaults are those of the
    authors' code: two hidden layers of 256 ReLU units, five components, one mixture for each action
    dimension (independent across dimensions), log standard deviations clipped to [-20, 2].
    """

    def __init__(
        self,
        input_tensor_spec: types.NestedTensorSpec,
        output_tensor_spec: types.BoundedTensorSpec,
        num_components: int = 5,
        joint: bool = False,
        fc_layer_params: Sequence[int] = (256, 256),
        log_std_bounds: tuple[float, float] = (-20.0, 2.0),
        preprocessing_layers: Optional[types.NestedLayer] = None,
        preprocessing_combiner: Optional[tf.keras.layers.Layer] = None,
        conv_layer_params: Optional[Sequence[Any]] = None,
        activation_fn: Callable[[types.Tensor], types.Tensor] = tf.keras.activations.relu,
        kernel_initializer: Any = initializers.HiddenKernelInitializer,
        last_kernel_initializer: Any = initializers.OutputKernelInitializer,
        name: str = "MixtureBehaviorNetwork",
    ):
        """Creates the network.

        Args:
          input_tensor_spec: A nest of specs of the observations.
          output_tensor_spec: A `BoundedTensorSpec` of the actions, shape `[A]`, floating; its
            bounds may be scalars or arrays.
          num_components: Components of each mixture, K.
          joint: False for one mixture of K normals per action dimension; True for one mixture of K
            diagonal normals over all dimensions.
          fc_layer_params: Units of the hidden layers.
          log_std_bounds: Lower and upper clip of the log standard deviations, before tanh.
          preprocessing_layers: As in TF-Agents' `EncodingNetwork`.
          preprocessing_combiner: As in TF-Agents' `EncodingNetwork`.
          conv_layer_params: As in TF-Agents' `EncodingNetwork`.
          activation_fn: Activation of the hidden layers.
          kernel_initializer: Initializer of the hidden layers: a class, or a name, so that each
            layer draws its own numbers.
          last_kernel_initializer: Likewise, of the last layer.
          name: Name of the network.

        Raises:
          ValueError: If the actions are not one bounded floating spec of rank 1 with finite bounds,
            or another argument is not as above.
        """
        super().__init__(input_tensor_spec=input_tensor_spec, state_spec=(), name=name)
        self._low, self._high = _action_bounds(output_tensor_spec)
        checks.check_integer("num_components", num_components, low=1)
        checks.check_flag("joint", joint)
        checks.check_units("fc_layer_params", fc_layer_params)
        checks.check_bounds("log_std_bounds", log_std_bounds)
        self._output_tensor_spec = output_tensor_spec
        self._num_components = num_components
        self._joint = joint
        self._log_std_bounds = tuple(log_std_bounds)
        self._fc_layer_params = tuple(fc_layer_params)
        dtype = output_tensor_spec.dtype
        self._encoder = encoding_network.EncodingNetwork(
            input_tensor_spec,
            preprocessing_layers=preprocessing_layers,
            preprocessing_combiner=preprocessing_combiner,
            conv_layer_params=conv_layer_params,
            fc_layer_params=fc_layer_params,
            activation_fn=activation_fn,
            kernel_initializer=kernel_initializer,
            dtype=dtype,
        )
        num_actions = output_tensor_spec.shape[0]
        self._head = tf.keras.layers.Dense(
            num_components * ((1 + 2 * num_actions) if joint else 3 * num_actions),
            kernel_initializer=last_kernel_initializer,
            dtype=dtype,
            name="mixture_parameters",
        )

    @property
    def output_tensor_spec(self) -> types.BoundedTensorSpec:
        """The spec of the actions."""
        return self._output_tensor_spec

    @property
    def architecture(self) -> dict[str, Any]:
        """Constructor arguments that make a network with variables of the same shapes."""
        return {
            "num_components": self._num_components,
            "joint": self._joint,
            "fc_layer_params": self._fc_layer_params,
            "log_std_bounds": self._log_std_bounds,
        }

    def call(self, observation, step_type=(), network_state=(), training=False):
        """Returns mu(.|s), batch shape as the observations' outer dimensions, and the state."""
        outer_rank = nest_utils.get_outer_rank(observation, self.input_tensor_spec)
        encoding, network_state = self._encoder(
            observation, step_type=step_type, network_state=network_state, training=training
        )
        batch_squash = network_utils.BatchSquash(outer_rank)
        parameters = batch_squash.unflatten(self._head(batch_squash.flatten(encoding)))
        mixture = self._joint_mixture if self._joint else self._mixture_per_dimension
        return SquashedMixture(mixture(parameters), self._low, self._high), network_state

    def _scale(self, log_std: tf.Tensor) -> tf.Tensor:
        return tf.exp(tf.clip_by_value(log_std, *self._log_std_bounds))

    def _mixture_per_dimension(self, parameters: tf.Tensor) -> tfp.distributions.Distribution:
        num_actions = self._output_tensor_spec.shape[0]
        outer_shape = tf.shape(parameters)[:-1]
        shape = tf.concat([outer_shape, [3, num_actions, self._num_components]], axis=0)
        logits, loc, log_std = tf.unstack(tf.reshape(parameters, shape), 3, axis=-3)
        mixture = tfd.MixtureSameFamily(
            tfd.Categorical(logits=logits), tfd.Normal(loc, self._scale(log_std))
        )
        return tfd.Independent(mixture, reinterpreted_batch_ndims=1)

    def _joint_mixture(self, parameters: tf.Tensor) -> tfp.distributions.Distribution:
        num_actions = self._output_tensor_spec.shape[0]
        logits = parameters[..., : self._num_components]
        outer_shape = tf.shape(parameters)[:-1]
        shape = tf.concat([outer_shape, [2, self._num_components, num_actions]], axis=0)
        rest = tf.reshape(parameters[..., self._num_components :], shape)
        loc, log_std = tf.unstack(rest, 2, axis=-3)
        return tfd.MixtureSameFamily(
            tfd.Categorical(logits=logits),
            tfd.MultivariateNormalDiag(loc, self._scale(log_std)),
        )


def _action_bounds(spec: types.BoundedTensorSpec) -> tuple[np.ndarray, np.ndarray]:
    """Returns the bounds of the action spec, broadcast to its shape."""
    bounded = hasattr(spec, "minimum") and hasattr(spec, "maximum")
    if not bounded or spec.shape.rank != 1 or not spec.dtype.is_floating:
        raise ValueError(
            f"output_tensor_spec is {spec}; it must be one floating BoundedTensorSpec of shape "
            "[A], the box of the actions."
        )
    low, high = (np.broadcast_to(b, spec.shape) for b in (spec.minimum, spec.maximum))
    # Unbounded specs carry the largest floats as bounds: half of their width overflows.
    with np.errstate(over="ignore"):
        if not np.all(np.isfinite(high - low)) or not np.all(low < high):
            raise ValueError(
                f"output_tensor_spec has the bounds [{low}, {high}]; they must be finite, with "
                "minimum < maximum."
            )
    return low, high
