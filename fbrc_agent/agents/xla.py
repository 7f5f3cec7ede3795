"""An agent's update compiled by XLA: what it cannot compile is refused beforehand."""

from collections.abc import Mapping, Sequence
from typing import Any, Callable

import tensorflow as tf


def check_settings(debug_summaries: bool, summarize_grads_and_vars: bool) -> None:
    """Refuses settings of an agent, and a strategy, under which its update cannot be compiled.

    Args:
      debug_summaries: As of the agent.
      summarize_grads_and_vars: As of the agent.

    Raises:
      ValueError: If one of them is True; or in the scope of a strategy that exchanges gradients,
        even of one replica: TensorFlow cannot do so from within a `tf.function`.
    """
    if debug_summaries or summarize_grads_and_vars:
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


def compile_update(
    update: Callable[..., Any], optimizers: Mapping[str, tuple[Any, Sequence[tf.Variable]]]
) -> Callable[..., Any]:
    """Returns the compiled update; makes the optimizers' variables, which XLA cannot.

    Args:
      update: A function of tensors.
      optimizers: By the argument of the agent, each optimizer and the variables that it steps.

    Raises:
      ValueError: If an optimizer is not Keras'.
    """
    for name, (optimizer, variables) in optimizers.items():
        if not isinstance(optimizer, tf.keras.optimizers.legacy.Optimizer):
            raise ValueError(
                f"jit_compile is True, but {name} is a {type(optimizer).__name__}; give an "
                "optimizer of tf.keras.optimizers."
            )
        optimizer._create_all_weights(variables)
    return tf.function(update, jit_compile=True, autograph=False, reduce_retracing=True)
