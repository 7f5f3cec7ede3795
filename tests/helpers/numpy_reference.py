"""The losses in float64 NumPy, written from the paper's equations; gradients by differences.

Nothing of the package is used here. Parameters are flat lists [kernel, bias, kernel, bias, ...] of
ReLU networks with a linear last layer.
"""

import numpy as np


def mlp(parameters, inputs):
    """Returns the outputs of a ReLU network, [B, out]."""
    for i in range(0, len(parameters) - 2, 2):
        inputs = np.maximum(inputs @ parameters[i] + parameters[i + 1], 0.0)
    return inputs @ parameters[-2] + parameters[-1]


def offset(parameters, observations, actions):
    """Returns O(s, a), [B]."""
    return mlp(parameters, np.concatenate([observations, actions], axis=1))[:, 0]


def offset_action_gradient(parameters, observations, actions):
    """Returns grad_a O(s, a), [B, A], by back-propagation written out."""
    hidden = np.concatenate([observations, actions], axis=1)
    masks = []
    for i in range(0, len(parameters) - 2, 2):
        hidden = hidden @ parameters[i] + parameters[i + 1]
        masks.append(hidden > 0.0)
        hidden = np.maximum(hidden, 0.0)
    gradient = np.broadcast_to(parameters[-2][:, 0], hidden.shape)
    for i in reversed(range(0, len(parameters) - 2, 2)):
        gradient = (gradient * masks[i // 2]) @ parameters[i].T
    return gradient[:, observations.shape[1] :]


def log_sum_exp(values):
    """Returns log sum exp over the last axis."""
    top = values.max(axis=-1)
    return top + np.log(np.exp(values - top[..., None]).sum(axis=-1))


def mixture_parameters(parameters, observations, num_actions, num_components):
    """Returns (logits, locations, scales), each [B, A, K], of one mixture per dimension."""
    outputs = mlp(parameters, observations)
    logits, loc, log_std = outputs.reshape(len(outputs), 3, num_actions, num_components).swapaxes(
        0, 1
    )
    return logits, loc, np.exp(np.clip(log_std, -20.0, 2.0))


def squashed_log_density(logits, loc, scale, actions, low, high):
    """Returns log mu(a|s), [B]: mixtures of normals under tanh, scaled to [low, high].

    The change of variables for each component: log N(u) - log|da/du|, a = mid + half tanh(u).
    """
    half, middle = (high - low) / 2.0, (high + low) / 2.0
    u = np.arctanh((actions - middle) / half)[..., None]
    log_normal = -0.5 * ((u - loc) / scale) ** 2 - np.log(scale) - 0.5 * np.log(2.0 * np.pi)
    log_jacobian = np.log(half)[None, :, None] + np.log(1.0 - np.tanh(u) ** 2)
    log_weights = logits - log_sum_exp(logits)[..., None]
    return log_sum_exp(log_weights + log_normal - log_jacobian).sum(axis=1)


def numerical_gradient(function, parameters, step=1e-6):
    """Returns the gradient of a scalar function of a list of arrays, by central differences."""
    gradients = []
    for parameter in parameters:
        gradient = np.zeros_like(parameter)
        for index in np.ndindex(*parameter.shape):
            value = parameter[index]
            parameter[index] = value + step
            above = function()
            parameter[index] = value - step
            below = function()
            parameter[index] = value
            gradient[index] = (above - below) / (2.0 * step)
        gradients.append(gradient)
    return gradients
