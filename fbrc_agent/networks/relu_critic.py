"""grad_a O(s, a) of plain ReLU critics in closed form, a product cheaper to differentiate again."""

from collections.abc import Sequence
from typing import Optional

import tensorflow as tf
from tf_agents.agents.ddpg import critic_network
from tf_agents.networks import network
from tf_agents.typing import types

from fbrc_agent.networks import action_gradient


def dense_layers(net: network.Network) -> Optional[Sequence[tf.keras.layers.Dense]]:
    """Returns the layers of TF-Agents' `CriticNetwork` if it is a plain one, else None.

    Plain is one observation and one action, joined as they are: no encoding of either, no dropout,
    hidden layers of TensorFlow's or Keras' ReLU, at least one, a linear value, one dtype.
    """
    if type(net) is not critic_network.CriticNetwork or not net.built:
        return None
    layers = [layer for layer in net.layers if not isinstance(layer, tf.keras.layers.Flatten)]
    *hidden, value = layers
    plain = (
        all(type(layer) is tf.keras.layers.Dense for layer in layers)
        and all(layer.compute_dtype == layer.dtype == tf.float32 for layer in layers)
        and all(action_gradient.has_relu(layer) for layer in hidden)
        and value.activation is tf.keras.activations.linear
        and value.units == 1
    )
    if not hidden or not plain:
        return None
    # An encoding's layer would take the observation or the action alone.
    inputs = [layer.kernel.shape[0] for layer in layers]
    joined = sum(spec.shape.num_elements() for spec in tf.nest.flatten(net.input_tensor_spec))
    return layers if inputs == [joined, *(layer.units for layer in hidden)] else None


def value_and_gradient(
    layers: Sequence[tf.keras.layers.Dense],
    observation: types.NestedTensor,
    action: types.NestedTensor,
) -> tuple[tf.Tensor, types.NestedTensor]:
    """Returns O(s, a), `[B]`, and grad_a O(s, a), a nest like `action`.

    With hidden layers h_l = relu(h_{l-1} W_l + b_l), l = 1 ... L, h_0 = (s, a), the value h_L w + b
    and the masks M_l = 1 where h_l > 0, which are constants,

        grad_a O = (... ((M_L (W_L diag w)^T) * M_{L-1}) W_{L-1}^T ... * M_1) (rows of a in W_1)^T.

    w is multiplied into W_L first. The gradient of a function of this one then comes to W_L and w
    by one product with M_L; in the order of differentiation, (M_L * w) W_L^T, the way to w goes
    through layer L once more.

    Args:
      layers: What `dense_layers` returns.
      observation: One tensor `[B, ...]`.
      action: One tensor `[B, ...]`.
    """
    inputs = [tf.cast(tf.nest.flatten(nest)[0], tf.float32) for nest in (observation, action)]
    flat = [tf.reshape(tensor, [-1, tensor.shape[1:].num_elements()]) for tensor in inputs]
    units = [tf.concat(flat, axis=1)]
    *hidden, last = layers
    for layer in hidden:
        units.append(layer(units[-1]))
    value = last(units[-1])[:, 0]

    kernels = [tf.convert_to_tensor(layer.kernel) for layer in hidden]
    kernels[0] = kernels[0][flat[0].shape[1] :]
    kernels[-1] *= last.kernel[:, 0]
    gradient = tf.ones_like(units[-1])
    for kernel, active in zip(reversed(kernels), reversed(units)):
        masked = tf.raw_ops.ReluGrad(gradients=gradient, features=tf.stop_gradient(active))
        gradient = tf.linalg.matmul(masked, kernel, transpose_b=True)
    of_action = tf.nest.map_structure(
        lambda a: tf.cast(tf.reshape(gradient, tf.shape(a)), a.dtype), action
    )
    return value, of_action
