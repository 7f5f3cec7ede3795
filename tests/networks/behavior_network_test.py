"""mu(a|s): its density against NumPy and TFP, its edges, its mode."""

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_probability as tfp
from tf_agents.policies import actor_policy, greedy_policy
from tf_agents.specs import tensor_spec
from tf_agents.trajectories import time_step as ts

from fbrc_agent.networks import behavior_network
from tests.helpers import numpy_reference as reference

tfb, tfd = tfp.bijectors, tfp.distributions

LOW, HIGH = np.array([-2.0, 0.0], np.float32), np.array([2.0, 5.0], np.float32)
OBSERVATION = tensor_spec.TensorSpec([3], tf.float32, "observation")
ACTION = tensor_spec.BoundedTensorSpec([2], tf.float32, LOW, HIGH, "action")


def network(joint=False, spread=1.0, action_spec=ACTION):
    net = behavior_network.MixtureBehaviorNetwork(
        OBSERVATION, action_spec, num_components=4, joint=joint, fc_layer_params=(8,)
    )
    net.create_variables()
    generator = np.random.default_rng(0)
    for variable in net.variables:
        variable.assign(spread * 0.5 * generator.standard_normal(variable.shape))
    return net


def observations(count=9):
    return tf.constant(np.random.default_rng(1).standard_normal((count, 3)), tf.float32)


def actions_inside(count=9):
    return tf.constant(np.random.default_rng(2).uniform(LOW, HIGH, (count, 2)), tf.float32)


both = pytest.mark.parametrize("joint", [False, True])


def test_density_is_the_numpy_formula():
    net, s, a = network(), observations(), actions_inside()
    parameters = [v.numpy().astype(np.float64) for v in net.variables]
    mixture = reference.mixture_parameters(parameters, s.numpy().astype(np.float64), 2, 4)
    expected = reference.squashed_log_density(*mixture, a.numpy().astype(np.float64), LOW, HIGH)
    np.testing.assert_allclose(net(s)[0].log_prob(a), expected, rtol=2e-5)


@both
def test_density_is_tfps_with_the_tanh_inside_the_mixture(joint):
    net, s, a = network(joint), observations(), actions_inside()
    ours = net(s)[0]
    inner = ours.distribution if joint else ours.distribution.distribution
    squash = tfb.Chain([tfb.Shift((HIGH + LOW) / 2), tfb.Scale((HIGH - LOW) / 2), tfb.Tanh()])
    if not joint:  # components are [B, A, K]: the bounds go along A
        middle, half = (HIGH + LOW)[:, None] / 2, (HIGH - LOW)[:, None] / 2
        squash = tfb.Chain([tfb.Shift(middle), tfb.Scale(half), tfb.Tanh()])
    theirs = tfd.MixtureSameFamily(
        inner.mixture_distribution,
        tfd.TransformedDistribution(inner.components_distribution, squash),
    )
    expected = theirs.log_prob(a)
    expected = expected if joint else tf.reduce_sum(expected, axis=-1)
    np.testing.assert_allclose(ours.log_prob(a), expected, rtol=1e-4, atol=1e-4)


@both
def test_density_integrates_to_one_over_the_box(joint):
    net = network(joint, spread=0.5)  # wide components would pile up in the outermost cells
    count = 400
    centers = [LOW[i] + (HIGH[i] - LOW[i]) * (np.arange(count) + 0.5) / count for i in range(2)]
    grid = np.stack(np.meshgrid(*centers, indexing="ij"), axis=-1).reshape(-1, 2)
    s = tf.repeat(observations(1), len(grid), axis=0)
    density = np.exp(net(s)[0].log_prob(tf.constant(grid, tf.float32)).numpy().astype(np.float64))
    area = float(np.prod(HIGH - LOW))
    assert abs(density.mean() * area - 1.0) < 0.01


@both
@pytest.mark.parametrize("spread", [1.0, 10.0])
def test_density_and_gradient_are_finite_on_the_closed_box(joint, spread):
    net = network(joint, spread)
    edges = [[LOW[0], HIGH[1]], [HIGH[0], LOW[1]], [LOW[0], 2.5], [0.0, HIGH[1]], [0.0, 2.5]]
    edges += [np.nextafter(HIGH, LOW), np.nextafter(LOW, HIGH)]
    a = tf.constant(np.array(edges), tf.float32)
    with tf.GradientTape() as tape:
        tape.watch(a)
        log_prob = net(observations(len(edges)))[0].log_prob(a)
    gradients = tape.gradient(log_prob, [a])
    assert np.isfinite(log_prob).all() and np.isfinite(gradients[0]).all()


def test_weights_get_finite_gradients_from_actions_on_the_bounds():
    net = network(spread=10.0)
    with tf.GradientTape() as tape:
        loss = -tf.reduce_mean(net(observations(2))[0].log_prob(tf.constant([LOW, HIGH])))
    assert all(np.isfinite(g).all() for g in tape.gradient(loss, net.trainable_variables))


def test_a_narrow_box_far_from_zero_has_finite_edges():
    spec = tensor_spec.BoundedTensorSpec([2], tf.float32, 99.0, 101.0)
    net = network(action_spec=spec)
    edge = net(observations(2))[0].log_prob([[99.0, 101.0], [101.0, 100.0]])
    assert np.isfinite(edge).all()


def test_density_at_the_bound_is_the_one_at_the_margin():
    net, s = network(), observations(1)
    half, middle = (HIGH - LOW) / 2, (HIGH + LOW) / 2
    inside = (middle + half * (1.0 - 1e-6)).astype(np.float64)
    parameters = [v.numpy().astype(np.float64) for v in net.variables]
    mixture = reference.mixture_parameters(parameters, s.numpy().astype(np.float64), 2, 4)
    expected = reference.squashed_log_density(*mixture, inside[None], LOW, HIGH)
    # float32 resolves 1 - 1e-6 to 6%, which moves atanh by 0.03.
    np.testing.assert_allclose(net(s)[0].log_prob(HIGH[None]), expected, rtol=0.02)


@both
def test_samples_lie_in_the_box_and_have_the_density(joint):
    net = network(joint, spread=0.5)
    tf.random.set_seed(0)
    s = tf.repeat(observations(1), 20000, axis=0)
    samples = net(s)[0].sample().numpy()
    assert (samples >= LOW).all() and (samples <= HIGH).all()
    below = np.mean(samples[:, 0] < 0.0)
    grid = np.stack(
        np.meshgrid(
            -2.0 + 2.0 * (np.arange(200) + 0.5) / 200,
            5.0 * (np.arange(200) + 0.5) / 200,
            indexing="ij",
        ),
        axis=-1,
    ).reshape(-1, 2)
    states = tf.repeat(observations(1), len(grid), axis=0)
    density = np.exp(net(states)[0].log_prob(tf.constant(grid, tf.float32)).numpy())
    assert abs(below - density.mean() * 10.0) < 0.02  # 10 is the area of the half box


@both
def test_mode_is_the_squashed_location_of_the_highest_component(joint):
    num_parameters = 2 * (1 + 2 * 2) if joint else 3 * 2 * 2
    net = behavior_network.MixtureBehaviorNetwork(
        OBSERVATION, ACTION, num_components=2, joint=joint, fc_layer_params=(4,)
    )
    net.create_variables()
    kernel, bias = net.variables[-2:]
    kernel.assign(tf.zeros_like(kernel))
    assert bias.shape == (num_parameters,)
    # The second component has twice the weight, but a tenth of the height.
    weight, wide = np.log(2.0), np.log(20.0 if not joint else 5.0)
    if joint:
        bias.assign([0.0, weight, 0.3, -0.4, -1.0, 1.0, 0.0, 0.0, wide, wide])
    else:
        bias.assign([0.0, weight] * 2 + [0.3, -1.0, -0.4, 1.0] + [0.0, wide] * 2)
    mode = net(observations(3))[0].mode()
    expected = (HIGH + LOW) / 2 + (HIGH - LOW) / 2 * np.tanh([0.3, -0.4])
    np.testing.assert_allclose(mode, np.tile(expected, (3, 1)), rtol=1e-5)


def test_greedy_policy_over_mu_takes_its_mode():
    net, s = network(), observations()
    policy = actor_policy.ActorPolicy(ts.time_step_spec(OBSERVATION), ACTION, net)
    action = greedy_policy.GreedyPolicy(policy).action(ts.restart(s, batch_size=9)).action
    np.testing.assert_allclose(action, net(s)[0].mode(), rtol=1e-6)


def test_components_start_apart_and_layers_differ():
    net = behavior_network.MixtureBehaviorNetwork(OBSERVATION, ACTION, fc_layer_params=(16, 16, 16))
    net.create_variables()
    first, second = (v.numpy() for v in net.variables if v.shape == (16, 16))
    assert not np.allclose(first, second)
    locations = net(observations(1))[0].distribution.distribution.components_distribution.loc
    assert len(np.unique(locations.numpy())) == locations.numpy().size


def test_defaults_are_the_authors():
    net = behavior_network.MixtureBehaviorNetwork(OBSERVATION, ACTION)
    net.create_variables()
    kernels = [tuple(v.shape) for v in net.variables if "kernel" in v.name]
    assert kernels == [(3, 256), (256, 256), (256, 2 * 5 * 3)]
    last = net.variables[-2].numpy()
    np.testing.assert_allclose(last.T @ last, 1e-4 * np.eye(30), atol=1e-8)


def test_time_dimension_gives_one_density_per_step():
    net = network()
    s = tf.reshape(observations(8), [4, 2, 3])
    a = tf.reshape(actions_inside(8), [4, 2, 2])
    flat = net(tf.reshape(s, [8, 3]))[0].log_prob(tf.reshape(a, [8, 2]))
    np.testing.assert_allclose(net(s)[0].log_prob(a), tf.reshape(flat, [4, 2]), rtol=1e-5)


@pytest.mark.parametrize(
    "spec",
    [
        tensor_spec.TensorSpec([2], tf.float32),
        tensor_spec.BoundedTensorSpec([2], tf.int32, 0, 3),
        tensor_spec.BoundedTensorSpec([], tf.float32, -1, 1),
        tensor_spec.BoundedTensorSpec([2], tf.float32, 1, 1),
        tensor_spec.BoundedTensorSpec([2], tf.float32, tf.float32.min, tf.float32.max),
    ],
)
def test_refuses_actions_without_a_box(spec):
    with pytest.raises(ValueError, match="output_tensor_spec (is|has) .* must be"):
        behavior_network.MixtureBehaviorNetwork(OBSERVATION, spec)
