"""The bandit of section 5.1, and the networks that are fitted to it: all of a seed at once."""

import dataclasses
from collections.abc import Sequence
from typing import Any, Callable, NamedTuple

import numpy as np
import tensorflow as tf

from fbrc_agent.networks import initializers
from fbrc_agent.utils import progress

DATA_BOUND = 0.25  # The data's actions are in [-DATA_BOUND, DATA_BOUND].
GRID = np.linspace(-1.0, 1.0, 2001, dtype=np.float32)
_STEPS_PER_CALL = 50


@dataclasses.dataclass(frozen=True)
class Settings:
    """The full setting by default."""

    seeds: int = 20  # Each has its own data, weights and batches.
    penalty_weights: tuple[float, ...] = (  # F-BRC's lambda, increasing.
        0.0, 1e-6, 3e-6, 1e-5, 1e-4, 3e-4, 1e-3, 2e-3, 3e-3, 1e-2, 0.1, 1.0,
    )  # fmt: skip
    # BRAC's alpha, increasing; one reward network serves all. The derivative of its landscape
    # changes its sign in the data near 1/8.
    alphas: tuple[float, ...] = (
        0.0, 1e-6, 1e-5, 1e-4, 1e-3, 3e-3,
        *(float(f"{alpha:.3g}") for alpha in np.logspace(-2.0, 0.0, 41)),
    )  # fmt: skip
    num_actions: int = 1000  # Of the data.
    units: int = 256  # Of each of the two hidden layers.
    steps: int = 3000
    batch_size: int = 64  # Actions of the data in an update, and uniform ones for the penalty.
    learning_rate: float = 1e-3  # Adam's.


QUICK_SETTINGS = Settings(seeds=5)


class Landscapes(NamedTuple):
    """What the methods maximize, for each seed on GRID, up to a constant.

    Attributes:
      fbrc: O(a) + log mu(a), `[S, penalty_weights, G]`.
      brac: R(a) + alpha log mu(a), `[S, alphas, G]`.
    """

    fbrc: np.ndarray
    brac: np.ndarray


class Weights(NamedTuple):
    """The weights of K networks of one input, two hidden ReLU layers and one output, stacked."""

    kernel_1: tf.Tensor  # [K, 1, U]
    bias_1: tf.Tensor  # [K, 1, U]
    kernel_2: tf.Tensor  # [K, U, U]
    bias_2: tf.Tensor  # [K, 1, U]
    kernel_3: tf.Tensor  # [K, U, 1]
    bias_3: tf.Tensor  # [K, 1, 1]


def reward(actions: np.ndarray) -> np.ndarray:
    """Returns r(a) = |a| - 0.125."""
    return np.abs(actions) - 0.125


def fit_laplace(actions: np.ndarray) -> tuple[float, float]:
    """Returns location and scale of the Laplace density of the highest likelihood.

    Those are the median and the mean absolute deviation from it.
    """
    location = np.median(actions)
    return float(location), float(np.mean(np.abs(actions - location)))


def laplace_log_prob(actions: np.ndarray, location: float, scale: float) -> np.ndarray:
    """Returns log mu(a) = -|a - location| / scale - log(2 scale), in nats."""
    return -np.abs(actions - location) / scale - np.log(2.0 * scale)


def values(weights: Weights, actions: tf.Tensor) -> tf.Tensor:
    """Returns f_k(a), `[K, B]`, of actions `[B]`."""
    hidden = tf.nn.relu(actions[:, tf.newaxis] * weights.kernel_1 + weights.bias_1)
    hidden = tf.nn.relu(hidden @ weights.kernel_2 + weights.bias_2)
    return (hidden @ weights.kernel_3 + weights.bias_3)[:, :, 0]


def derivatives(weights: Weights, actions: tf.Tensor) -> tf.Tensor:
    """Returns df_k/da, `[K, B]`, of actions `[B]`: the derivative is carried forward.

    A ReLU's derivative is a step, whose own is 0: the steps are constants to the second derivative.
    """
    hidden = actions[:, tf.newaxis] * weights.kernel_1 + weights.bias_1
    step_1 = tf.cast(hidden > 0.0, tf.float32)
    step_2 = tf.cast((step_1 * hidden) @ weights.kernel_2 + weights.bias_2 > 0.0, tf.float32)
    derivative = step_2 * ((step_1 * weights.kernel_1) @ weights.kernel_2)
    return (derivative @ weights.kernel_3)[:, :, 0]


def losses(
    weights: Weights, actions: tf.Tensor, targets: tf.Tensor, uniform_actions: tf.Tensor,
    penalty_weights: tf.Tensor,
) -> tf.Tensor:  # fmt: skip
    """Returns the mean of (f_k(a) - y_k)^2 plus lambda_k times that of (df_k/da)^2, `[K]`.

    With y = r(a) - log mu(a), that is eq. 7 of a single step, its policy uniform; with y = r(a) and
    lambda = 0 it is the regression on the rewards. `actions` a are those of the data, `[B]`,
    `targets` y_k, `[K, B]`, and `uniform_actions` those of the penalty, `[P]`.
    """
    errors = tf.reduce_mean(tf.square(values(weights, actions) - targets), axis=1)
    penalties = tf.reduce_mean(tf.square(derivatives(weights, uniform_actions)), axis=1)
    return errors + penalty_weights * penalties


def train(settings: Settings) -> Landscapes:
    """Fits all networks of every seed and returns what they make of the bandit.

    The networks of a seed, one for each lambda and one for the rewards, are trained together, from
    the same first weights and on the same batches.
    """
    networks, units = len(settings.penalty_weights) + 1, settings.units
    shapes = ((1, units), (1, units), (units, units), (1, units), (units, 1), (1, 1))
    variables = [tf.Variable(tf.zeros((networks, *shape))) for shape in shapes]
    # Adam goes by elements, so that networks in one tensor do not touch each other. The legacy one
    # is a fused operation.
    optimizer = tf.keras.optimizers.legacy.Adam(settings.learning_rate)
    update = _make_update(settings, variables, optimizer)
    fbrc, brac = [], []
    total = settings.seeds * settings.steps
    with progress.make_bar(total=total, desc="bandit", unit="update", smoothing=0.05) as bar:
        for seed in range(settings.seeds):
            bounds = -DATA_BOUND, DATA_BOUND
            actions = np.random.default_rng(seed).uniform(*bounds, settings.num_actions)
            laplace = fit_laplace(actions)
            rewards = reward(actions)
            offsets = [rewards - laplace_log_prob(actions, *laplace)] * (networks - 1)
            data = [tf.constant(x, tf.float32) for x in (actions, np.stack([*offsets, rewards]))]
            _reset(variables, optimizer, seed)
            for start in range(0, settings.steps, _STEPS_PER_CALL):
                stop = min(start + _STEPS_PER_CALL, settings.steps)
                update(*data, *(tf.constant(number) for number in (seed, start, stop)))
                bar.update(stop - start)
            fitted = values(Weights(*variables), tf.constant(GRID)).numpy()
            log_mu = laplace_log_prob(GRID, *laplace)
            fbrc.append(fitted[:-1] + log_mu)
            brac.append(fitted[-1] + np.outer(settings.alphas, log_mu))
    return Landscapes(np.stack(fbrc), np.stack(brac))


def _reset(variables: Sequence[tf.Variable], optimizer: Any, seed: int) -> None:
    """Gives all networks the same weights, initialized as the offset network's; biases are 0."""
    hidden, output = initializers.HiddenKernelInitializer, initializers.OutputKernelInitializer
    layers: tuple[Any, ...] = (hidden, None, hidden, None, output, None)
    for i, (variable, create) in enumerate(zip(variables, layers)):
        shape = variable.shape[1:]
        first = tf.zeros(shape) if create is None else create(seed=6 * seed + i)(shape)
        variable.assign(tf.broadcast_to(first, variable.shape))
    for state in optimizer.variables():  # None before the first update.
        state.assign(tf.zeros_like(state))


def _make_update(
    settings: Settings, variables: Sequence[tf.Variable], optimizer: Any
) -> Callable[..., None]:
    """Returns a function of actions `[N]`, targets `[K, N]`, seed, first and last step."""
    penalty_weights = tf.constant([*settings.penalty_weights, 0.0])

    @tf.function
    def update(
        actions: tf.Tensor, targets: tf.Tensor, seed: tf.Tensor, start: tf.Tensor, stop: tf.Tensor
    ) -> None:
        for step in tf.range(start, stop):
            indices = tf.random.stateless_uniform(
                [settings.batch_size], [seed, 2 * step], 0, tf.shape(actions)[0], tf.int32
            )
            uniform_actions = _stratified_actions(settings.batch_size, [seed, 2 * step + 1])
            batch = tf.gather(actions, indices), tf.gather(targets, indices, axis=1)
            # Every variable is read once, and all its gradients follow from that: no read can be
            # delayed beyond the update.
            weights = Weights(*(variable.read_value() for variable in variables))
            with tf.GradientTape(watch_accessed_variables=False) as tape:
                tape.watch(weights)
                # No weight is in two networks, so the gradient of the sum is that of each loss.
                loss = tf.reduce_sum(losses(weights, *batch, uniform_actions, penalty_weights))
            optimizer.apply_gradients(zip(tape.gradient(loss, list(weights)), variables))

    return update


def _stratified_actions(size: int, seed: Sequence[Any]) -> tf.Tensor:
    """Returns actions, `[size]`, one uniform in each of equal parts of [-1, 1].

    A mean over them has the expectation of one over independent uniform actions, and a smaller
    variance.
    """
    places = tf.range(size, dtype=tf.float32) + tf.random.stateless_uniform([size], seed)
    return 2.0 * places / size - 1.0
