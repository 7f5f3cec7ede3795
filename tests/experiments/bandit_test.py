"""The bandit of section 5.1, against NumPy in float64 and its exact solution."""

import dataclasses
import json

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_probability as tfp

from fbrc_agent.experiments import bandit
from fbrc_agent.networks import action_gradient
from tests.helpers import numpy_reference

TINY = bandit.Settings(
    seeds=2, penalty_weights=(0.0, 0.01, 0.1), alphas=(0.0, 0.1, 1.0), num_actions=50, units=8,
    steps=60, batch_size=16, learning_rate=0.01,
)  # fmt: skip


def random_weights(networks=2, units=6):
    generator = np.random.default_rng(0)
    shapes = [(1, units), (1, units), (units, units), (1, units), (units, 1), (1, 1)]
    arrays = [generator.normal(size=(networks, *shape)).astype(np.float32) for shape in shapes]
    return [tf.constant(array) for array in arrays]


def parameters_of(weights, k):
    return [np.asarray(weight[k], np.float64) for weight in weights]


def reference_loss(parameters, actions, targets, uniform_actions, penalty_weight):
    """The loss of one network in float64."""
    errors = numpy_reference.mlp(parameters, actions[:, None])[:, 0] - targets
    nothing = np.zeros((len(uniform_actions), 0))
    gradients = numpy_reference.offset_action_gradient(
        parameters, nothing, uniform_actions[:, None]
    )
    return np.mean(errors**2) + penalty_weight * np.mean(gradients**2)


def exact_landscape(penalty_weight, location, scale):
    """F-BRC's landscape on the grid if O may be any function and the data are all actions inside.

    O minimizes the mean of (O + log mu - r)^2 over |a| <= 0.25 plus lambda times that of O'^2 over
    [-1, 1]: on a grid, with differences for O', that is a linear system.
    """
    grid = bandit.GRID.astype(np.float64)
    step = grid[1] - grid[0]
    log_mu = -np.abs(grid - location) / scale - np.log(2.0 * scale)
    density = np.where(np.abs(grid) < 0.2501, 1.0 / 0.5, 0.0) * step
    differences = np.diff(np.eye(len(grid)), axis=0) / step
    system = np.diag(density) + penalty_weight * 0.5 * step * differences.T @ differences
    offset = np.linalg.solve(system, density * (np.abs(grid) - 0.125 - log_mu))
    return offset + log_mu


def test_loss_and_gradient_are_those_of_float64():
    weights, generator = random_weights(), np.random.default_rng(1)
    actions = generator.uniform(-0.25, 0.25, 7)
    targets, uniform_actions = generator.normal(size=(2, 7)), generator.uniform(-1.0, 1.0, 5)
    penalty_weights = np.array([0.0, 0.3])
    with tf.GradientTape() as tape:
        tape.watch(weights)
        losses = bandit.losses(
            weights,
            *(
                tf.constant(array, tf.float32)
                for array in (actions, targets, uniform_actions, penalty_weights)
            ),
        )
        total = tf.reduce_sum(losses)
    gradients = tape.gradient(total, weights, unconnected_gradients=tf.UnconnectedGradients.ZERO)
    for k in range(2):
        parameters = parameters_of(weights, k)

        def loss(parameters, k=k):
            return reference_loss(
                parameters, actions, targets[k], uniform_actions, penalty_weights[k]
            )

        np.testing.assert_allclose(losses[k], loss(parameters), rtol=1e-5)
        for gradient, parameter in zip(gradients, parameters):
            for index in np.ndindex(parameter.shape):
                value, sides = parameter[index], []
                for change in (1e-6, -1e-6):
                    parameter[index] = value + change
                    sides.append(loss(parameters))
                parameter[index] = value
                expected = (sides[0] - sides[1]) / 2e-6
                np.testing.assert_allclose(gradient[k][index], expected, rtol=1e-3, atol=1e-4)


def test_penalty_is_that_of_the_agent():
    weights = random_weights()
    actions = tf.constant(np.linspace(-1.0, 1.0, 9, dtype=np.float32))
    derivatives = bandit.derivatives(weights, actions)
    for k in range(2):
        gradient = action_gradient.of_function(
            lambda a, k=k: bandit.values(weights, a[:, 0])[k],
            actions[:, tf.newaxis],
            tf.TensorShape([9]),
        )
        expected = action_gradient.squared_norm(gradient)
        assert np.ptp(expected) > 0.0
        np.testing.assert_allclose(tf.square(derivatives[k]), expected, rtol=1e-5)


def test_laplace_has_the_highest_likelihood():
    assert bandit.fit_laplace(np.array([-1.0, 0.0, 3.0])) == (0.0, 4.0 / 3.0)
    actions = np.random.default_rng(0).uniform(-0.25, 0.25, 101)
    location, scale = bandit.fit_laplace(actions)

    def likelihood(location, scale):
        return tfp.distributions.Laplace(location, scale).log_prob(actions).numpy().mean()

    best = bandit.laplace_log_prob(actions, location, scale).mean()
    assert best == pytest.approx(likelihood(location, scale), rel=1e-6)
    for change in (-0.02, 0.02):
        assert likelihood(location + change, scale) < best
        assert likelihood(location, scale + change) < best


def test_training_comes_to_the_exact_solution():
    settings = dataclasses.replace(
        TINY, seeds=1, penalty_weights=(0.01, 0.1), num_actions=4000, units=32, steps=600,
        batch_size=64, learning_rate=3e-3,
    )  # fmt: skip
    landscapes = bandit.train(settings)
    actions = np.random.default_rng(0).uniform(-0.25, 0.25, 4000)  # The data of seed 0.
    laplace = bandit.fit_laplace(actions)
    inside = np.abs(bandit.GRID) <= 0.25
    for weight, landscape in zip(settings.penalty_weights, landscapes["fbrc"][0]):

        def distance(exact_weight, landscape=landscape):
            error = (landscape - exact_landscape(exact_weight, *laplace))[inside]
            return np.abs(error - error.mean()).mean()

        # A penalty over the data's actions alone would be as four times the weight.
        assert distance(weight) < 0.5 * min(distance(4.0 * weight), distance(weight / 4.0))


def test_networks_of_a_seed_do_not_touch_each_other():
    together = bandit.train(TINY)
    alone = bandit.train(dataclasses.replace(TINY, penalty_weights=(0.1,)))
    np.testing.assert_allclose(together["fbrc"][:, 2], alone["fbrc"][:, 0], atol=1e-4)
    np.testing.assert_allclose(together["brac"], alone["brac"], atol=1e-4)
    assert np.abs(together["fbrc"][:, 2] - together["fbrc"][:, 0]).max() > 0.1
    assert np.abs(together["fbrc"][0] - together["fbrc"][1]).max() > 0.01


def landscapes_with_peaks(fbrc, brac):
    """Landscapes [S, weights, G] that peak where they are told to."""

    def of(peaks):
        peaks = np.asarray(peaks, np.float64)
        return -np.abs(bandit.GRID - peaks[..., np.newaxis])

    return {"fbrc": of(fbrc), "brac": of(brac)}


def test_numbers_of_known_landscapes():
    settings = dataclasses.replace(TINY, penalty_weights=(0.0, 0.01, 0.1, 1.0))
    landscapes = landscapes_with_peaks(
        fbrc=[[0.25, 0.24, -0.27, 0.0], [0.25, -0.25, 0.25, 0.25]],
        brac=[[1.0, 0.25, 0.0], [1.0, 1.0, 0.0]],
    )
    numbers = bandit.measure(landscapes, settings)
    json.dumps(numbers, allow_nan=False)
    assert [entry["argmax"] for entry in numbers["fbrc"].values()] == [
        [0.25, 0.25], [0.24, -0.25], [-0.27, 0.25], [0.0, 0.25],
    ]  # fmt: skip
    assert list(numbers["brac"]) == ["0", "0.1", "1"]
    every, median = {"from": 0.01, "to": 0.1, "decades": 1.0}, None
    assert numbers["robust_range"]["fbrc"] == {"every_seed": every, "median_seed": every}
    assert numbers["robust_range"]["brac"] == {"every_seed": None, "median_seed": median}
    # -|a| differs from |a| - 0.125 by 2 |a|, whose mean distance from its mean 0.25 is 0.125.
    assert numbers["fbrc"]["1"]["error_inside"][0] == pytest.approx(0.125, rel=0.01)


def test_robust_range_is_the_longest_run_without_zero():
    weights = (0.0, 1e-4, 1e-3, 1e-2, 0.1, 1.0)
    holds = np.array([True, True, False, True, True, False])
    assert bandit.robust_range(weights, holds) == {"from": 0.01, "to": 0.1, "decades": 1.0}
    assert bandit.robust_range(weights, np.array([True] + 5 * [False])) is None


def test_report_has_all_seeds_and_a_picture(tmp_path):
    bandit.make_report(TINY).write(str(tmp_path), ["bandit"])
    numbers = json.loads((tmp_path / "bandit.json").read_text())
    for method, keys in (("fbrc", ["0", "0.01", "0.1"]), ("brac", ["0", "0.1", "1"])):
        assert list(numbers[method]) == keys
        for entry in numbers[method].values():
            assert len(entry["argmax"]) == len(entry["error_inside"]) == 2
    assert (tmp_path / "bandit.png").stat().st_size > 10_000
    assert "| F-BRC, λ | seeds that hold |" in (tmp_path / "README.md").read_text()
