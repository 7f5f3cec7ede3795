"""||grad_a f(s, a)||^2, the integrand of the gradient penalty (Kostrikov et al. 2021, eq. 7)."""

from typing import Callable

import tensorflow as tf
from tf_agents.typing import types


def squared_action_gradient(
    function: Callable[[types.NestedTensor], tf.Tensor],
    actions: types.NestedTensor,
    outer_shape: tf.TensorShape,
) -> tf.Tensor:
    """Returns ||grad_a f(a)||^2 per example, summed over the action's dimensions and its nest.

    For values of shape `[B, T]` each step's value is differentiated with respect to that step's
    action alone, the earlier ones fixed: a recurrent f depends on them too. That takes T passes.

    Args:
      function: f, from actions to values of the outer shape.
      actions: The actions.
      outer_shape: The static shape `[B]` or `[B, T]`.

    Raises:
      ValueError: If T is not known.
    """
    flat = tf.nest.flatten(actions)
    with tf.GradientTape(persistent=True, watch_accessed_variables=False) as tape:
        tape.watch(flat)
        value = function(actions)
        steps = [value] if outer_shape.rank == 1 else _steps(value, outer_shape)

    def squared(step: int, step_value: tf.Tensor) -> tf.Tensor:
        gradients = tape.gradient(
            step_value, flat, unconnected_gradients=tf.UnconnectedGradients.ZERO
        )
        if outer_shape.rank > 1:
            gradients = [g[:, step] for g in gradients]
        return tf.add_n(
            [tf.reduce_sum(tf.square(g), axis=list(range(1, g.shape.rank))) for g in gradients]
        )

    norms = [squared(step, step_value) for step, step_value in enumerate(steps)]
    return norms[0] if outer_shape.rank == 1 else tf.stack(norms, axis=1)


def _steps(values: tf.Tensor, outer_shape: tf.TensorShape) -> list[tf.Tensor]:
    """Returns the columns of `[B, T]`."""
    if outer_shape[1] is None:
        raise ValueError(
            "A recurrent critic_network needs experience of a fixed number of time steps, [B, T] "
            f"with T known, got the shape {outer_shape}: its gradient penalty takes one backward "
            "pass per step."
        )
    return tf.unstack(values, num=outer_shape[1], axis=1)
