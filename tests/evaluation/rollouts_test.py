"""Tests of fbrc_agent.evaluation.rollouts."""

import time

import gymnasium
import numpy as np
import pytest
import tensorflow as tf
from tf_agents.networks import actor_distribution_network
from tf_agents.policies import actor_policy, greedy_policy, tf_policy
from tf_agents.specs import tensor_spec
from tf_agents.trajectories import policy_step
from tf_agents.trajectories import time_step as ts

from fbrc_agent.evaluation import rollouts
from fbrc_agent.utils.errors import InputError


class _Countdown(gymnasium.Env):
    """An episode of the seed k has k + 1 steps with the rewards k + action[0].

    Even seeds end in a terminal state, odd ones at a time limit. The observation is (k, step).
    Stepping an ended episode is an error.
    """

    observation_space = gymnasium.spaces.Box(-np.inf, np.inf, (2,), np.float64)
    action_space = gymnasium.spaces.Box(-1.0, 1.0, (1,))

    def reset(self, *, seed=None, options=None):
        self._seed, self._steps = seed, 0
        return np.array([seed, 0.0]), {}

    def step(self, action):
        assert self._steps <= self._seed, "stepped after the end"
        self._steps += 1
        ended = self._steps == self._seed + 1
        even = self._seed % 2 == 0
        observation = np.array([self._seed, self._steps], np.float64)
        return observation, self._seed + action[0], ended and even, ended and not even, {}


COUNTDOWN = "FbrcCountdown-v0"


@pytest.fixture(scope="module", autouse=True)
def _countdown():
    gymnasium.register(COUNTDOWN, entry_point=_Countdown)
    yield
    del gymnasium.registry[COUNTDOWN]


class _Linear:
    """tanh(W o), summed one by one in a fixed order: row i does not depend on the other rows."""

    def __init__(self, observation_size, action_size):
        generator = np.random.default_rng(0)
        self._weights = generator.normal(size=(observation_size, action_size)).astype(np.float32)

    def __call__(self, observations):
        total = np.zeros((len(observations), self._weights.shape[1]), np.float32)
        for column, weights in zip(observations.T, self._weights):
            total = total + column[:, np.newaxis] * weights
        return np.tanh(total)


def _quarter(observations):
    return np.full((len(observations), 1), 0.25)


def test_returns_and_lengths_of_known_episodes():
    result = rollouts.evaluate(_quarter, COUNTDOWN, num_episodes=4, seed=2)
    # Seed k: k + 1 steps of reward k + 0.25.
    np.testing.assert_array_equal(result.returns, [3 * 2.25, 4 * 3.25, 5 * 4.25, 6 * 5.25])
    np.testing.assert_array_equal(result.lengths, [3, 4, 5, 6])
    assert result.returns.dtype == np.float64
    assert result.lengths.dtype == np.int64


def test_mean_and_standard_deviation():
    result = rollouts.EvaluationResult(np.array([1.0, 2.0, 6.0]), np.array([1, 1, 1]))
    assert result.return_mean == 3.0
    assert result.return_std == pytest.approx(np.sqrt((4.0 + 1.0 + 9.0) / 3.0))


def test_one_policy_call_per_step_with_all_rows():
    calls = []

    def action_fn(observations):
        calls.append(observations.copy())
        return _quarter(observations)

    rollouts.evaluate(action_fn, COUNTDOWN, num_episodes=3, seed=0)
    # The longest episode has three steps. Ended episodes keep their last observation.
    assert [call.tolist() for call in calls] == [
        [[0, 0], [1, 0], [2, 0]],
        [[0, 1], [1, 1], [2, 1]],
        [[0, 1], [1, 2], [2, 2]],
    ]
    assert all(call.dtype == np.float32 for call in calls)


@pytest.mark.parametrize(
    "environment_id, observation_size, action_size", [("Hopper-v4", 11, 3), ("Pendulum-v1", 3, 1)]
)
def test_episodes_are_the_same_together_and_one_by_one(
    environment_id, observation_size, action_size
):
    action_fn = _Linear(observation_size, action_size)
    together = rollouts.evaluate(action_fn, environment_id, num_episodes=4, seed=7)
    alone = [rollouts.evaluate(action_fn, environment_id, 1, seed) for seed in range(7, 11)]
    np.testing.assert_array_equal(together.returns, [one.returns[0] for one in alone])
    np.testing.assert_array_equal(together.lengths, [one.lengths[0] for one in alone])
    assert len(set(together.returns)) == 4


def test_a_real_episode_is_gymnasiums_own():
    action_fn = _Linear(3, 1)
    environment = gymnasium.make("Pendulum-v1")
    observation, _ = environment.reset(seed=5)
    expected, truncated = 0.0, False
    while not truncated:
        action = action_fn(np.float32(observation)[np.newaxis])[0]
        observation, reward, _, truncated, _ = environment.step(action)
        expected += reward
    result = rollouts.evaluate(action_fn, "Pendulum-v1", 1, 5)
    # TF-Agents' rewards are float32: 6e-8 relative each.
    assert result.returns[0] == pytest.approx(expected, rel=1e-7)
    assert result.lengths[0] == 200


def test_the_rows_of_ended_episodes_may_hold_any_numbers():
    def action_fn(observations):
        ended = observations[:, 1:] > observations[:, :1]
        return np.where(ended, np.nan, 0.0)

    assert rollouts.evaluate(action_fn, COUNTDOWN, 3, 0).lengths.tolist() == [1, 2, 3]


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_non_finite_action_is_an_input_error_that_names_the_step(bad):
    def action_fn(observations):
        return np.where(observations[:, 1:] == 2.0, bad, 0.0)  # Episode 0 has ended then.

    with pytest.raises(InputError, match="step 2 of episode 1 is"):
        rollouts.evaluate(action_fn, COUNTDOWN, num_episodes=2, seed=1)


def test_actions_of_a_wrong_shape_are_an_input_error():
    with pytest.raises(InputError, match=r"is \(2, 3\); it must be \(2, 1\)"):
        rollouts.evaluate(lambda o: np.zeros((len(o), 3)), COUNTDOWN, 2, 0)


@pytest.mark.parametrize("arguments, name", [((0, 0), "num_episodes"), ((1, -1), "seed")])
def test_numbers_out_of_range_are_an_input_error(arguments, name):
    with pytest.raises(InputError, match=name):
        rollouts.evaluate(_quarter, COUNTDOWN, *arguments)


def _specs(observation_size, action_size):
    observation_spec = tf.TensorSpec([observation_size], tf.float32, "observation")
    action_spec = tensor_spec.BoundedTensorSpec([action_size], tf.float32, -1.0, 1.0, "action")
    return observation_spec, action_spec


def _greedy_policy(observation_size, action_size, units):
    observation_spec, action_spec = _specs(observation_size, action_size)
    network = actor_distribution_network.ActorDistributionNetwork(
        observation_spec, action_spec, fc_layer_params=units
    )
    policy = actor_policy.ActorPolicy(ts.time_step_spec(observation_spec), action_spec, network)
    return greedy_policy.GreedyPolicy(policy)


class _Halves(tf_policy.TFPolicy):
    """The action is half of the second observation; counts its traces and sees the time step."""

    def __init__(self, policy_state_spec=()):
        observation_spec, action_spec = _specs(2, 1)
        super().__init__(ts.time_step_spec(observation_spec), action_spec, policy_state_spec)
        self.time_steps = []

    def _action(self, time_step, policy_state, seed):
        self.time_steps.append(time_step)
        return policy_step.PolicyStep(0.5 * time_step.observation[:, 1:], policy_state)


def test_a_tf_agents_policy_sees_the_observations_in_one_trace():
    policy = _Halves()
    action_fn = rollouts.policy_action_fn(policy)
    actions = action_fn(np.array([[0.0, 1.0], [0.0, -0.5]], np.float32))
    np.testing.assert_array_equal(actions, [[0.5], [-0.25]])
    action_fn(np.zeros([2, 2], np.float32))
    (time_step,) = policy.time_steps
    assert [time_step.observation.shape, time_step.reward.shape] == [[2, 2], [2]]


def test_a_policy_with_state_is_an_input_error():
    policy = _Halves(policy_state_spec=tf.TensorSpec([3], tf.float32))
    with pytest.raises(InputError, match="it must have none"):
        rollouts.policy_action_fn(policy)


def test_a_network_policy_acts_as_when_called_directly():
    policy = _greedy_policy(2, 1, (8,))
    observations = np.random.default_rng(1).normal(size=(5, 2)).astype(np.float32)
    expected = policy.action(ts.restart(tf.constant(observations), 5)).action
    np.testing.assert_allclose(rollouts.policy_action_fn(policy)(observations), expected, rtol=1e-6)


def test_ten_hopper_episodes_together_are_faster_than_one_after_another():
    action_fn = rollouts.policy_action_fn(_greedy_policy(11, 3, (256, 256, 256)))
    for num_episodes in (1, 10):  # The traces are not part of the measurement.
        rollouts.evaluate(action_fn, "Hopper-v4", num_episodes, 0)
    start = time.process_time()
    for seed in range(10):
        rollouts.evaluate(action_fn, "Hopper-v4", 1, seed)
    middle = time.process_time()
    rollouts.evaluate(action_fn, "Hopper-v4", 10, 0)
    end = time.process_time()
    ratio = (middle - start) / (end - middle)
    print(f"10 episodes of Hopper-v4: {ratio:.1f} times faster together")
    assert ratio > 1.5  # About 4; with room for a busy machine.
