"""Where TF-Agents 0.19 does not fit later releases of TensorFlow and NumPy."""

import functools
from typing import Any

import tensorflow as tf
from tf_agents.specs import tensor_spec

from fbrc_agent.utils.errors import InputError


def check_keras() -> None:
    """Refuses Keras 3, with which TF-Agents fails obscurely, with an InputError."""
    if not issubclass(tf.keras.layers.Layer, tf.Module):  # As those of Keras 2 are.
        raise InputError(
            f"tf.keras is Keras {tf.keras.__version__}; TF-Agents needs Keras 2, so "
            "`import fbrc_agent` must come before `import tensorflow`, or the environment variable "
            "TF_USE_LEGACY_KERAS must be 1."
        )


def mend_sampling_of_uint8() -> None:
    """Lets TF-Agents sample specs of images, with which it builds networks.

    It adds 1 to the maximum, 255, in the spec's own type; under NumPy 2 that gives 0.
    """
    sample_bounded_spec = tensor_spec.sample_bounded_spec

    @functools.wraps(sample_bounded_spec)
    def sample(spec: Any, *arguments: Any, **keywords: Any) -> tf.Tensor:
        if spec.dtype != tf.uint8:
            return sample_bounded_spec(spec, *arguments, **keywords)
        wide = tensor_spec.BoundedTensorSpec(spec.shape, tf.int32, spec.minimum, spec.maximum)
        return tf.cast(sample_bounded_spec(wide, *arguments, **keywords), tf.uint8)

    tensor_spec.sample_bounded_spec = sample
