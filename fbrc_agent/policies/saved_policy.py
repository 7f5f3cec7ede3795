"""Acts with an exported SavedModel; TF-Agents is not needed to load it."""

import os
from typing import Callable

import numpy as np
import tensorflow as tf

from fbrc_agent.utils import os_errors
from fbrc_agent.utils.errors import InputError

_SIGNATURE = "serving_default"


def check_is_model(directory: str) -> None:
    """Refuses a directory that is no SavedModel with an InputError."""
    if not tf.saved_model.contains_saved_model(directory):
        raise InputError(
            f"'{directory}' is not a SavedModel directory: it has no "
            f"{os.path.join(directory, 'saved_model.pb')}."
        )


def load_action_fn(
    directory: str, observation_size: int, action_size: int
) -> Callable[[np.ndarray], np.ndarray]:
    """Loads an exported policy.

    Args:
      directory: A SavedModel whose signature `serving_default` takes `observation` [None, S] and
        returns `action` [None, A], both float32.
      observation_size: S, of the environment that it is to act in.
      action_size: A.

    Returns:
      A function from observations [N, S] to actions [N, A].

    Raises:
      InputError: If there is no SavedModel, it is damaged, or its signature is another one.
    """
    check_is_model(directory)
    try:
        model = tf.saved_model.load(directory)
    # What TensorFlow raises for damaged files.
    except (OSError, ValueError, LookupError, RuntimeError, tf.errors.OpError) as error:
        reason = os_errors.damage(error).rstrip(".")
        raise InputError(
            f"The SavedModel '{directory}' cannot be loaded, it may be damaged ({reason}); export "
            "the policy again."
        ) from error
    function = model.signatures.get(_SIGNATURE)
    if function is None:
        raise InputError(
            f"The signatures of the SavedModel '{directory}' are {sorted(model.signatures)}; one "
            f"must be '{_SIGNATURE}'."
        )
    wanted = {"observation": [None, observation_size], "action": [None, action_size]}
    found = {**function.structured_input_signature[1], **function.structured_outputs}
    shapes = {k: None if v.shape.rank is None else v.shape.as_list() for k, v in found.items()}
    if shapes != wanted or any(spec.dtype != tf.float32 for spec in found.values()):
        described = " and ".join(f"{k} {shapes[k]} {v.dtype.name}" for k, v in found.items())
        raise InputError(
            f"The signature '{_SIGNATURE}' of the SavedModel '{directory}' has {described}; the "
            f"environment needs observation {wanted['observation']} and action "
            f"{wanted['action']}, both float32."
        )

    def action_fn(observations: np.ndarray) -> np.ndarray:
        # `model` is named here so that it lives, with its variables, as long as this function.
        return model.signatures[_SIGNATURE](observation=tf.constant(observations))["action"].numpy()

    return action_fn
