"""The average of an actor's weights: its recursion by hand, and that training does not see it."""

import numpy as np
import pytest
import tensorflow as tf
from tf_agents.trajectories import time_step as ts

from fbrc_agent.training import run_log
from fbrc_agent.utils import json_files
from tests.agents import fbrc_test as agents
from tests.helpers import tiny_runs


def make(**options):
    tf.keras.utils.set_random_seed(0)
    return agents.fbrc(seed=3, **options)


def weights(net):
    return [weight.copy() for weight in net.get_weights()]


def test_average_follows_its_recursion():
    agent = make(actor_average_decay=0.75)
    expected = weights(agent._actor_network)
    for seed in range(3):
        agent.train(agents.batch(seed))
        pairs = zip(expected, weights(agent._actor_network))
        expected = [0.75 * average + 0.25 * new for average, new in pairs]
    found = agent.average_policy._actor_network.get_weights()
    for ours, wanted, last in zip(found, expected, weights(agent._actor_network)):
        np.testing.assert_allclose(ours, wanted, rtol=1e-5, atol=1e-7)
        assert np.abs(ours - last).max() > 1e-4


@pytest.mark.parametrize("jit_compile", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_training_is_the_same_with_an_average(jit_compile):
    trained = []
    for options in ({}, {"actor_average_decay": 0.9}):
        agent = make(jit_compile=jit_compile, **options)
        train = tf.function(agent.train)
        for seed in range(3):
            train(agents.batch(seed))
        trained.append(weights(agent._actor_network) + weights(agent._critic_network_1))
    tf.nest.map_structure(np.testing.assert_array_equal, *trained)


def test_policy_of_the_average_is_the_actor_at_a_decay_of_0():
    agent = make(actor_average_decay=0.0)
    agent.train(agents.batch(0))
    time_step = ts.restart(agents.batch(1).observation[:, 0], batch_size=agents.BATCH)
    actions = [
        policy.distribution(time_step).action.mode().numpy()
        for policy in (agent.average_policy, agent.policy)
    ]
    np.testing.assert_array_equal(*actions)


def test_agent_without_an_average_has_no_policy_of_it():
    assert make().average_policy is None


def test_decay_outside_of_its_range_is_refused():
    with pytest.raises(ValueError, match="actor_average_decay is 1.5; .* from 0 to 1, or None"):
        make(actor_average_decay=1.5)


@pytest.mark.slow
def test_run_evaluates_logs_and_exports_the_average(tmp_path, tiny_run, pendulum_data, capsys):
    """The losses are those of a run without an average."""
    bindings = [
        "FbrcAgent.actor_average_decay = 0.9",
        f"train.pretrained = {{'behavior': '{tiny_run / 'behavior'}'}}",
    ]
    assert tiny_runs.train(tmp_path / "run", pendulum_data, bindings=bindings) == 0
    assert "F-BRC, average" in capsys.readouterr().out
    result = json_files.read_json(str(tmp_path / "run" / "result.json"))
    assert result["average_policy"] == "policies/average/20"
    card = json_files.read_json(str(tmp_path / "run" / result["average_policy"] / "policy.json"))
    lines = run_log.read_metrics(str(tmp_path / "run"), "fbrc")
    assert card["scores"]["returns"] == run_log.scores(lines, 20)["average_returns"]
    assert result["stages"]["fbrc"]["average_return_mean"] == pytest.approx(
        np.mean(card["scores"]["returns"])
    )
    losses = [
        [r["critic_loss"] for r in run_log.read_metrics(str(d), "fbrc") if "critic_loss" in r]
        for d in (tmp_path / "run", tiny_run)
    ]
    assert losses[0] == losses[1]
