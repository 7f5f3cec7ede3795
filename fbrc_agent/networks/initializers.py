"""The authors' weight initializers, as classes.

Keras gives every layer that shares one unseeded initializer *instance* the same random numbers.
TF-Agents' networks hand one `kernel_initializer` to all of their layers and again to every copy, so
both critics would come out with equal weights. Each layer makes its own instance of a *class*.
"""

import math
from typing import Optional

import tensorflow as tf


class HiddenKernelInitializer(tf.keras.initializers.Orthogonal):
    """Orthogonal with gain sqrt(2), which keeps the variance through a ReLU; for hidden layers."""

    def __init__(self, gain: float = math.sqrt(2.0), seed: Optional[int] = None):
        super().__init__(gain=gain, seed=seed)


class OutputKernelInitializer(tf.keras.initializers.Orthogonal):
    """Orthogonal with gain 0.01: a network starts with outputs near 0; for last layers."""

    def __init__(self, gain: float = 0.01, seed: Optional[int] = None):
        super().__init__(gain=gain, seed=seed)
