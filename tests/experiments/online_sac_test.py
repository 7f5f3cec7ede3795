"""Tests of experiments.collect: the record of the transitions and the batches for SAC."""

import gymnasium
import numpy as np
import pytest
import tensorflow as tf
from tf_agents.specs import tensor_spec

from fbrc_agent.datasets import batches
from fbrc_agent.experiments import collect
from fbrc_agent.utils.errors import InputError


class _Chain(gymnasium.Env):
    """Episodes of three steps through the observations e, e + 1, ..., e + 3, e = 10 * episode.

    Even episodes end in a terminal state, odd ones at a time limit. The reward is the observation.
    """

    observation_space = gymnasium.spaces.Box(-np.inf, np.inf, (1,), np.float64)
    action_space = gymnasium.spaces.Box(np.array([-1.0, 2.0]), np.array([1.0, 4.0]))

    def __init__(self):
        self._episode = -1

    def reset(self, *, seed=None, options=None):
        self._episode += 1
        self._at = 10.0 * self._episode
        return np.array([self._at]), {}

    def step(self, action):
        reward = self._at
        self._at += 1
        last = self._at % 10 == 3
        even = self._episode % 2 == 0
        return np.array([self._at]), reward, last and even, last and not even, {}


CHAIN = "FbrcChain-v0"


@pytest.fixture(scope="module", autouse=True)
def _chain():
    gymnasium.register(CHAIN, entry_point=_Chain)
    yield
    del gymnasium.registry[CHAIN]


def _record(num_steps):
    recorder = collect.Recorder(CHAIN, seed=0, capacity=100)
    for step in range(num_steps):
        recorder.step(np.array([0.0, step], np.float32))
    return recorder


def test_rows_follow_the_episodes():
    columns = _record(7).columns()
    assert columns["observations"][:, 0].tolist() == [0, 1, 2, 10, 11, 12, 20]
    assert columns["rewards"].tolist() == [0, 1, 2, 10, 11, 12, 20]
    assert columns["actions"][:, 1].tolist() == [0, 1, 2, 3, 4, 5, 6]
    assert columns["terminals"].tolist() == [False, False, True, False, False, False, False]


@pytest.mark.parametrize(
    "num_steps, timeouts", [(7, [5, 6]), (6, [5]), (5, [4]), (3, []), (9, [5]), (1, [0])]
)
def test_time_limits_and_the_cut_are_timeouts_and_terminals_are_not(num_steps, timeouts):
    columns = _record(num_steps).columns()
    assert np.flatnonzero(columns["timeouts"]).tolist() == timeouts


def test_marking_the_cut_does_not_change_the_recording():
    recorder = _record(4)
    recorder.columns()
    recorder.step(np.zeros(2, np.float32))
    assert np.flatnonzero(recorder.columns()["timeouts"]).tolist() == [4]


def test_batches_hold_complete_transitions_of_what_was_recorded():
    batch = _record(7).sample(np.random.default_rng(0), 200)
    observations, actions, rewards, next_observations, discounts = batch
    assert set(observations[:, 0]) == {0, 1, 2, 10, 11, 12, 20}
    np.testing.assert_array_equal(rewards, observations[:, 0])
    # Across a time limit, too, the next state is the one that was reached.
    np.testing.assert_array_equal(next_observations, observations + 1)
    np.testing.assert_array_equal(discounts, np.where(observations[:, 0] == 2, 0.0, 1.0))
    assert {array.dtype for array in batch} == {np.dtype(np.float32)}


def test_random_actions_fill_the_action_box():
    generator = np.random.default_rng(0)
    actions = np.array([collect.random_action(_Chain(), generator) for _ in range(500)])
    np.testing.assert_allclose(actions.min(axis=0), [-1.0, 2.0], atol=0.02)
    np.testing.assert_allclose(actions.max(axis=0), [1.0, 4.0], atol=0.02)
    assert actions.dtype == np.float32


def test_sac_learns_a_one_step_task():
    """Every step is terminal, so Q is the reward, four times the action."""
    tf.keras.utils.set_random_seed(0)
    observation_spec = tf.TensorSpec([1], tf.float32, "observation")
    action_spec = tensor_spec.BoundedTensorSpec([1], tf.float32, -1.0, 1.0, "action")
    agent = collect.make_sac_agent(observation_spec, action_spec, (32,), learning_rate=1e-2)
    train = tf.function(lambda *batch: agent.train(batches.to_trajectory(*batch)).loss)
    generator = np.random.default_rng(0)
    observations = np.zeros([64, 1], np.float32)
    for _ in range(300):
        actions = generator.uniform(-1.0, 1.0, [64, 1]).astype(np.float32)
        rewards = 4.0 * actions[:, 0]
        # The next observation must not matter: the discount is zero.
        train(observations, actions, rewards, observations + 100.0, np.zeros(64, np.float32))
    q_values, _ = agent._critic_network_1((np.zeros([2, 1]), np.array([[-0.5], [0.5]])))
    np.testing.assert_allclose(q_values, [-2.0, 2.0], atol=0.2)


def test_the_two_critics_differ():
    observation_spec = tf.TensorSpec([2], tf.float32)
    action_spec = tensor_spec.BoundedTensorSpec([1], tf.float32, -1.0, 1.0)
    agent = collect.make_sac_agent(observation_spec, action_spec, (4, 4))
    pairs = zip(agent._critic_network_1.variables, agent._critic_network_2.variables)
    assert all(not np.array_equal(a, b) for a, b in pairs if a.shape.rank == 2)


SIZES = {
    "num_random_steps": 10,
    "batch_size": 4,
    "evaluation_interval": 20,
    "num_evaluation_episodes": 1,
}


def test_training_too_short_for_an_evaluation_is_an_input_error():
    training = collect.train("Pendulum-v1", 0, {"low": 0.0}, max_steps=29, **SIZES)
    with pytest.raises(InputError, match="OnlineSac.max_steps is 29; it must be .* 30 or more"):
        next(training)


def test_training_stops_where_a_threshold_is_reached():
    thresholds = {"low": -1e9, "high": 0.0}
    training = collect.train("Pendulum-v1", 0, thresholds, max_steps=60, **SIZES)
    _, recorder, _ = next(training)
    assert recorder.size == 20
    with pytest.raises(InputError, match="within OnlineSac.max_steps = 60 steps; high = 0"):
        next(training)
    assert recorder.size == 60


@pytest.mark.parametrize(
    "argument, value",
    [("hidden_units", (0,)), ("learning_rate", 0.0), ("gamma", 1.5), ("target_update_tau", 0.0)],
)
def test_arguments_out_of_range_are_refused(argument, value):
    specs = tf.TensorSpec([1]), tensor_spec.BoundedTensorSpec([1], tf.float32, -1.0, 1.0)
    with pytest.raises(InputError, match=f"make_sac_agent.{argument} is"):
        collect.make_sac_agent(*specs, **{argument: value})
