"""A run on normalized data leaves policies that take raw observations."""

import numpy as np
import pytest
import tensorflow as tf
from tf_agents.policies import actor_policy, greedy_policy
from tf_agents.specs import tensor_spec
from tf_agents.trajectories import time_step as ts

import fbrc_agent
from fbrc_agent.networks import actor_network
from fbrc_agent.policies import raw_observations
from fbrc_agent.utils import json_files
from tests.helpers import tiny_runs


def test_policy_over_raw_observations_normalizes_them():
    specs = ts.time_step_spec(tf.TensorSpec([2], tf.float32))
    action_spec = tensor_spec.BoundedTensorSpec([1], tf.float32, -1.0, 1.0)
    network = actor_network.create_actor_network(specs.observation, action_spec, (4,))
    inner = actor_policy.ActorPolicy(specs, action_spec, network)
    normalization = {"mean": [3.0, -1.0], "scale": [2.0, 0.5]}
    outer = raw_observations.over_raw(inner, normalization)
    raw = np.array([[4.0, 1.0], [3.0, -1.0]], np.float32)
    normalized = (raw - [3.0, -1.0]) / [2.0, 0.5]
    actions = [
        greedy_policy.GreedyPolicy(policy)
        .action(ts.restart(tf.constant(observation, tf.float32), batch_size=2))
        .action.numpy()
        for policy, observation in ((outer, raw), (inner, normalized))
    ]
    np.testing.assert_allclose(*actions, rtol=1e-6)
    assert len(outer.variables()) == len(inner.variables())
    assert raw_observations.over_raw(inner, None) is inner


@pytest.fixture(scope="module")
def runs(tmp_path_factory, pendulum_data):
    """Two runs that are the same but for who normalizes the observations."""
    directory = tmp_path_factory.mktemp("runs")
    raw = fbrc_agent.load_dataset(str(pendulum_data))
    shifted = raw.observations * np.float32(64.0) + np.float32(8.0)  # Exact in float32.
    following = raw.next_observations * np.float32(64.0) + np.float32(8.0)
    data = fbrc_agent.OfflineData.from_arrays(
        shifted,
        raw.actions,
        raw.rewards,
        following,
        raw.discounts,
        action_bounds=(-2.0, 2.0),
        episode_returns=raw.episode_returns,
        source="shifted",
    )
    bindings = [
        *tiny_runs.NETWORKS,
        *("BATCH_SIZE = 32", "EVAL_INTERVAL = 10", "train.log_interval = 10"),
        "preprocess.normalize_observations = True",
    ]
    results = [
        fbrc_agent.train(each, str(directory / name), steps=20, seed=0, bindings=bindings)
        for each, name in ((raw, "raw"), (data, "shifted"))
    ]
    return raw, directory, results


@pytest.mark.slow
def test_policies_act_alike_on_raw_observations(runs):
    raw, _, (of_raw, of_shifted) = runs
    observations = raw.observations[:50]
    actions = of_raw.policy(observations)
    shifted = of_shifted.policy(observations * np.float32(64.0) + np.float32(8.0))
    np.testing.assert_allclose(actions, shifted, atol=1e-4)
    assert np.abs(actions - of_raw.policy(observations + 1.0)).max() > 1e-4


@pytest.mark.slow
def test_values_and_the_export_on_demand_take_raw_observations(runs, tmp_path):
    raw, directory, (_, of_shifted) = runs
    models = []
    for name in ("raw", "shifted"):
        arguments = ("--root_dir", directory / name, "--output", tmp_path / name, "--with_value")
        assert tiny_runs.run_command("export", *arguments) == 0
        models.append(tf.saved_model.load(str(tmp_path / name / "1")))
    observations, actions = raw.observations[:50], tf.constant(raw.actions[:50])
    moved = observations * np.float32(64.0) + np.float32(8.0)
    values = [
        model.signatures["value"](observation=tf.constant(s), action=actions)["q"].numpy()
        for model, s in zip(models, (observations, moved))
    ]
    np.testing.assert_allclose(*values, atol=1e-3)
    exported = models[1].signatures["serving_default"](observation=tf.constant(moved))["action"]
    np.testing.assert_allclose(exported, of_shifted.policy(moved), atol=1e-6)


@pytest.mark.slow
def test_card_and_records_have_the_numbers(runs):
    raw, directory, (of_raw, _) = runs
    card = json_files.read_json(f"{of_raw.result['policy']}/policy.json")
    np.testing.assert_allclose(card["normalization"]["mean"], raw.observations.mean(axis=0), 1e-4)
    np.testing.assert_allclose(
        card["observation"]["minimum"], raw.observations.min(axis=0), atol=1e-5
    )
    assert card["data"]["normalization"] == card["normalization"]
    page = (directory / "raw/policies/greedy/20/README.md").read_text()
    assert "takes raw observations and normalizes them itself" in page
