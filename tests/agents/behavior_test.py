"""BehaviorAgent: it finds the density of data whose density is known."""

import numpy as np
import pytest
import tensorflow as tf
from tf_agents.trajectories import time_step as ts
from tf_agents.utils import common

from fbrc_agent.agents import behavior as behavior_agent
from fbrc_agent.datasets import batches, offline_data
from fbrc_agent.networks import behavior_network

TRUE_LOC, TRUE_SCALE = 0.8, 0.15  # of both components, at +- TRUE_LOC, before tanh


def bimodal_data(count, seed):
    """Actions tanh(u), u from an even mixture of N(-0.8, 0.15^2) and N(0.8, 0.15^2)."""
    generator = np.random.default_rng(seed)
    u = generator.choice([-TRUE_LOC, TRUE_LOC], (count, 1))
    u = u + TRUE_SCALE * generator.standard_normal((count, 1))
    states = generator.standard_normal((count, 2))
    zeros = np.zeros(count)
    return offline_data.OfflineData.from_arrays(states, np.tanh(u), zeros, states, zeros + 1)


def true_log_density(actions):
    u = np.arctanh(actions.astype(np.float64))
    normals = [
        np.exp(-0.5 * ((u - m) / TRUE_SCALE) ** 2) / (TRUE_SCALE * np.sqrt(2 * np.pi))
        for m in (-TRUE_LOC, TRUE_LOC)
    ]
    return (np.log(sum(normals) / 2) - np.log(1 - actions.astype(np.float64) ** 2))[:, 0]


def fitted(data, num_components, updates=400, **arguments):
    tf.keras.utils.set_random_seed(0)
    mu = behavior_network.MixtureBehaviorNetwork(
        data.time_step_spec.observation, data.action_spec, num_components, fc_layer_params=(32,)
    )
    arguments.setdefault("optimizer", tf.keras.optimizers.Adam(1e-2))
    agent = behavior_agent.BehaviorAgent(
        data.time_step_spec,
        data.action_spec,
        mu,
        train_step_counter=tf.Variable(0, dtype=tf.int64),
        **arguments,
    )
    agent.initialize()
    train = common.function(agent.train)
    info = None
    for experience, _ in batches.make_tf_dataset(data, 256, seed=0).take(updates):
        info = train(experience)
    return agent, info


@pytest.mark.parametrize("entropy_term", [False, True])
def test_finds_a_bimodal_density(entropy_term):
    data, held_out = bimodal_data(5000, seed=0), bimodal_data(2000, seed=1)
    alpha_optimizer = tf.keras.optimizers.Adam(1e-2) if entropy_term else None
    # The components start together; it takes some hundred updates until they part.
    agent, _ = fitted(data, 5, updates=1000, alpha_optimizer=alpha_optimizer)
    density, _ = agent.behavior_network(tf.constant(held_out.observations))
    found = density.log_prob(held_out.actions).numpy().mean()
    best = true_log_density(held_out.actions).mean()
    assert best - 0.1 < found < best + 0.05


def test_one_component_cannot():
    data = bimodal_data(5000, seed=0)
    agent, info = fitted(data, 1)
    # The best single normal has scale sqrt(0.8^2 + 0.15^2) instead of 0.15, and both its modes.
    assert float(info.extra.log_prob) < true_log_density(data.actions).mean() - 0.5


def test_counts_steps_and_leaves_the_temperature_alone_without_its_optimizer():
    agent, info = fitted(bimodal_data(500, seed=0), 2, updates=3)
    assert int(agent.train_step_counter) == 3
    assert float(agent.alpha) == 1.0
    assert float(info.extra.entropy) == 0.0
    assert info.extra._fields == ("behavior_loss", "alpha_loss", "log_prob", "entropy")


def test_temperature_falls_while_the_entropy_is_above_its_target():
    data = bimodal_data(500, seed=0)
    arguments = {"alpha_optimizer": tf.keras.optimizers.Adam(1e-2), "target_entropy": -9.0}
    agent, info = fitted(data, 2, updates=5, **arguments)
    assert float(info.extra.entropy) > -9.0
    assert float(agent.alpha) < 1.0


def test_learning_rate_schedule_is_followed():
    schedule = tf.keras.optimizers.schedules.PiecewiseConstantDecay([2], [1e-2, 0.0])
    data = bimodal_data(500, seed=0)
    weights = []
    for updates in (3, 6):
        agent, _ = fitted(data, 2, updates, optimizer=tf.keras.optimizers.Adam(schedule))
        weights.append([v.numpy() for v in agent.behavior_network.variables])
    # The rate is 1e-2 while the optimizer has made up to 2 updates, 0 from the fourth on.
    for third, sixth in zip(*weights):
        np.testing.assert_array_equal(third, sixth)


def test_policies_act_inside_the_bounds():
    data = bimodal_data(500, seed=0)
    agent, _ = fitted(data, 2, updates=1)
    for policy in (agent.policy, agent.collect_policy):
        step = ts.restart(tf.constant(data.observations[:7]), batch_size=7)
        action = policy.action(step).action.numpy()
        assert action.shape == (7, 1) and (np.abs(action) <= 1.0).all()
