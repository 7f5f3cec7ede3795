"""An agent's update: what its terms share, the order of its reads and writes, XLA."""

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any, Callable, NamedTuple, Optional

import tensorflow as tf
from tf_agents.trajectories import time_step as ts
from tf_agents.typing import types


class States(NamedTuple):
    """Time steps, and what several terms of an update need at them."""

    time_steps: ts.TimeStep
    policy: Optional[types.NestedDistribution]  # pi(.|s); None where no action is drawn.
    behavior: Optional[types.NestedDistribution]  # mu(.|s), of algorithms that need it.


class TdError(NamedTuple):
    """What makes J of Q: an elementwise loss of (target, prediction), discount and reward scale."""

    loss_fn: types.LossFn
    gamma: types.Float
    reward_scale_factor: types.Float


@contextlib.contextmanager
def tape(variables: Sequence[tf.Variable]) -> Iterator[tf.GradientTape]:
    """Yields a tape that watches these variables and no others."""
    with tf.GradientTape(watch_accessed_variables=False) as gradient_tape:
        gradient_tape.watch(variables)
        yield gradient_tape


def ordered_gradients(
    gradient_tape: tf.GradientTape, loss: tf.Tensor, variables: Sequence[tf.Variable]
) -> list[Optional[tf.Tensor]]:
    """Returns gradients that an optimizer applies after all that the loss reads has been read.

    tf.function orders reads and writes too, but its edges can get lost where TensorFlow's optimizer
    splits Keras' IdentityN of all gradients: biases of the gradient penalty were then sometimes
    read after their update.
    """
    gradients = gradient_tape.gradient(loss, variables)
    with tf.control_dependencies([loss]):
        return [None if gradient is None else tf.identity(gradient) for gradient in gradients]


def compile_update(
    update: Callable[..., Any],
    has_summaries: bool,
    **optimizers: tuple[Any, Sequence[tf.Variable]],
) -> Callable[..., Any]:
    """Returns the update compiled by XLA; makes the optimizers' variables, which XLA cannot.

    Args:
      update: A function of tensors.
      has_summaries: Whether it writes summaries.
      **optimizers: By the argument of the agent, each optimizer and the variables that it steps.

    Raises:
      ValueError: If it writes summaries, or an optimizer is not Keras'; or in the scope of a
        strategy that exchanges gradients, even of one replica: TensorFlow cannot do so from within
        a `tf.function`.
    """
    if has_summaries:
        raise ValueError(
            "jit_compile is True and so is debug_summaries or summarize_grads_and_vars, which "
            "write from within the update; give jit_compile=False, or neither of these."
        )
    strategy = tf.distribute.get_strategy()
    if tf.distribute.has_strategy() and not isinstance(strategy, tf.distribute.OneDeviceStrategy):
        raise ValueError(
            f"jit_compile is True under a {type(strategy).__name__}, which cannot exchange "
            "gradients from within a compiled update; give jit_compile=False, or train without a "
            "strategy."
        )
    for name, (optimizer, variables) in optimizers.items():
        if not isinstance(optimizer, tf.keras.optimizers.legacy.Optimizer):
            raise ValueError(
                f"jit_compile is True, but {name} is a {type(optimizer).__name__}; give an "
                "optimizer of tf.keras.optimizers."
            )
        optimizer._create_all_weights(variables)
    return tf.function(update, jit_compile=True, autograph=False, reduce_retracing=True)
