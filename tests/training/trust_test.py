"""What speaks against a policy, against values computed by hand."""

import numpy as np
import pytest
import tensorflow as tf
from tf_agents.policies import actor_policy
from tf_agents.specs import tensor_spec
from tf_agents.trajectories import time_step as ts

from fbrc_agent.agents.algorithm import Algorithm, Discounting
from fbrc_agent.datasets.offline_data import OfflineData
from fbrc_agent.networks import actor_network
from fbrc_agent.training import run_log, run_policies, trust

DISCOUNTING = Discounting(reward_scale=2.0, reward_bonus=1.0, gamma=0.5)


def make_data(rewards, discounts, starts, returns=(3.0, 5.0)):
    size = len(rewards)
    observations = np.arange(2 * size, dtype=np.float32).reshape(size, 2)
    return OfflineData.from_arrays(
        observations=observations,
        actions=np.linspace(-0.9, 0.9, size)[:, np.newaxis],
        rewards=rewards,
        next_observations=observations + 1,
        discounts=discounts,
        episode_starts=starts,
        episode_returns=returns,
    )


class _Agent(tf.Module):
    """The start of an agent: a policy, and values that a test chooses."""

    def __init__(self, q, log_mu):
        super().__init__()
        specs = ts.time_step_spec(tf.TensorSpec([2], tf.float32))
        action = tensor_spec.BoundedTensorSpec([1], tf.float32, -1.0, 1.0)
        network = actor_network.create_actor_network(specs.observation, action, (4,))
        self.policy = actor_policy.ActorPolicy(specs, action, network)
        self.q, self.log_mu = q, log_mu

    def values(self, observation, action):
        """log mu of the policy's actions is one number, that of the data's -1, -2, ..."""
        size = tf.shape(observation)[0]
        is_of_data = tf.abs(action[:, 0] - tf.linspace(-0.9, 0.9, size)) < 1e-6
        of_data = -1.0 - tf.cast(tf.range(size), tf.float32)
        log_mu = tf.where(is_of_data, of_data, tf.fill([size], self.log_mu))
        return {"q": tf.fill([size], self.q), "log_mu": log_mu}


def judge(q=0.0, log_mu=0.0, returns=(), data=None):
    agent = _Agent(q, log_mu)
    algorithm = Algorithm(
        name="toy",
        label="toy",
        create_agent=lambda *args: agent,
        values=_Agent.values,
        discounting=lambda agent: DISCOUNTING,
    )
    if data is None:
        size = 10  # Each row an episode of its own.
        data = make_data(np.ones(size), np.zeros(size), np.arange(size))
    records = [{"step": i, "return_mean": value} for i, value in enumerate(returns)]
    return trust.Trust(algorithm, agent, data).doubts(records)


def test_largest_supported_value_of_complete_episodes():
    data = make_data([1.0, 4.0, 2.0, 3.0], [1, 0, 1, 0], [0, 2])
    # 2 r + 1 = 3, 9; 5, 7: G = 3 + 4.5, 9; 5 + 3.5, 7.
    assert trust.largest_supported_value(data, DISCOUNTING) == 9.0


def test_rewards_go_on_alike_where_an_episode_was_cut():
    data = make_data([1.0, 1.0, 4.0], [1, 1, 1], [0])
    # k = 1: 9 / (1 - 1/2) = 18; k = 2: (3 + 4.5) / (1 - 1/4) = 10; k = 3: 6.75 / (1 - 1/8).
    assert trust.largest_supported_value(data, DISCOUNTING) == pytest.approx(18.0)
    short = DISCOUNTING._replace(gamma=0.99)  # 0.99^3 is above 1/2: three steps say too little.
    assert trust.largest_supported_value(data, short) is None


def test_values_are_held_against_the_data():
    # 2 r + 1 = 3 in one step; 1 percent of 3 / (1 - 0.5) beyond.
    assert judge(q=3.05) == []
    (doubt,) = judge(q=3.07)
    assert doubt == {"reason": "value", "value": pytest.approx(3.07), "bound": pytest.approx(3.06)}
    size = 4
    losses = make_data(-np.full(size, 4.0), np.zeros(size), np.arange(size))
    assert judge(q=0.1, data=losses) == []  # A critic starts at 0.
    assert judge(q=0.2, data=losses)[0]["bound"] == pytest.approx(0.01 * 7 / 0.5)


def test_actions_are_held_against_those_of_the_data():
    # Those of the data have log mu -1 to -10; one in ten is below -9.1.
    assert judge(log_mu=-9.0) == []
    (doubt,) = judge(log_mu=-9.2)
    assert doubt == {
        "reason": "actions",
        "value": pytest.approx(-9.2),
        "bound": pytest.approx(-9.1),
    }


@pytest.mark.parametrize(
    "returns, is_trusted",
    [
        ((5.0, 3.0, 2.0), False),  # The data's mean is 4.
        ((5.0, 3.0, 4.5), True),
        ((5.0, 4.5, 3.0), True),  # Once is no fall.
        ((3.0, 2.0, 1.0), True),  # It was never better.
        ((5.0, 3.0), True),
    ],
)
def test_scores_that_fall_and_stay_down(returns, is_trusted):
    doubts = judge(returns=returns)
    assert (doubts == []) == is_trusted
    if doubts:
        assert doubts == [{"reason": "score", "value": returns[-1], "bound": 4.0}]


def test_sentence_names_each_reason():
    assert trust.sentence([]) is None
    text = trust.sentence(judge(q=100.0, log_mu=-50.0, returns=(5.0, 3.0, 2.0)))
    assert text.startswith("the policy cannot be trusted: its values where episodes begin (100)")
    assert "(mean log mu -50) than nine of ten of the data's own (log mu -9.1)" in text
    assert "its return (2) stays below the data's mean (4)" in text


def test_the_best_policy_is_one_that_is_trusted():
    records = [{"step": step, "return_mean": float(step)} for step in (10, 20, 30)]
    event = {"event": "untrusted", "reason": "value", "value": 2.0, "bound": 1.0}
    events = [{**event, "step": 30}]
    assert run_log.doubts(events, 30) == [{"reason": "value", "value": 2.0, "bound": 1.0}]
    assert run_policies.best(records, []) == 30
    assert run_policies.best(records, events) == 20
    assert run_policies.best(records, [{**event, "step": s} for s in (10, 20, 30)]) == 30
