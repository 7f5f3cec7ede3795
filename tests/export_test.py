"""Exported policies: plain TensorFlow, equal to the policy in Python."""

import os
import pathlib
import resource
import shutil
import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf
from tf_agents.policies import actor_policy, greedy_policy, random_tf_policy
from tf_agents.specs import tensor_spec
from tf_agents.trajectories import time_step as ts

from fbrc_agent import actor_network, export, train
from fbrc_agent.errors import InputError
from tests import tiny

LOW, HIGH = np.array([-1.0, 0.0]), np.array([3.0, 0.5])
OBSERVATION_SIZE = 4

# Loads a model where nothing but TensorFlow can be imported, and acts on given observations.
SERVE = """
import sys
for name in ["tf_agents", "tensorflow_probability", "gin", "fbrc_agent"]:
    sys.modules[name] = None
import numpy as np, tensorflow as tf
serve = tf.saved_model.load(sys.argv[1]).signatures["serving_default"]
observations = np.load(sys.argv[2])
actions = serve(observation=tf.constant(observations))["action"].numpy()
empty = serve(observation=tf.constant(observations[:0]))["action"].numpy()
np.savez(sys.argv[3], actions=actions, empty=empty)
"""


def make_specs():
    time_step_spec = ts.time_step_spec(tf.TensorSpec([OBSERVATION_SIZE], tf.float32))
    return time_step_spec, tensor_spec.BoundedTensorSpec([2], tf.float32, LOW, HIGH, "action")


def make_policy():
    """Returns a policy with weights large enough that actions fill the box."""
    time_step_spec, action_spec = make_specs()
    actor = actor_network.create_actor_network(
        time_step_spec.observation, action_spec, fc_layer_params=(8, 8)
    )
    actor.create_variables()
    generator = np.random.default_rng(0)
    for variable in actor.variables:
        variable.assign(generator.normal(size=variable.shape))
    return actor_policy.ActorPolicy(time_step_spec, action_spec, actor_network=actor)


def make_observations(size=1000):
    shape = [size, OBSERVATION_SIZE]
    return np.random.default_rng(1).normal(size=shape).astype(np.float32)


def load(directory):
    return tf.saved_model.load(str(directory)).signatures["serving_default"]


@pytest.fixture(scope="module")
def policy():
    return make_policy()


@pytest.fixture(scope="module")
def exported(tmp_path_factory, policy):
    """The directory of an exported policy."""
    directory = tmp_path_factory.mktemp("export") / "model" / "1"
    assert export.export_policy(policy, str(directory)) == str(directory)
    return directory


@pytest.fixture(scope="module")
def served(tmp_path_factory, exported):
    """What the exported policy does in a process without TF-Agents."""
    directory = tmp_path_factory.mktemp("served")
    np.save(directory / "in.npy", make_observations())
    arguments = [exported, directory / "in.npy", directory / "out.npz"]
    subprocess.run(
        [sys.executable, "-c", SERVE, *map(str, arguments)], check=True, cwd=directory, timeout=300
    )
    return np.load(directory / "out.npz")


def test_signature_is_observation_in_action_out(exported):
    serve = load(exported)
    arguments, names = serve.structured_input_signature
    assert arguments == ()
    assert list(names) == ["observation"]
    assert (names["observation"].shape.as_list(), names["observation"].dtype) == (
        [None, OBSERVATION_SIZE],
        tf.float32,
    )
    outputs = serve.structured_outputs
    assert list(outputs) == ["action"]
    assert (outputs["action"].shape.as_list(), outputs["action"].dtype) == ([None, 2], tf.float32)


def test_actions_without_tf_agents_are_those_of_the_greedy_policy(served, policy):
    time_step = ts.restart(tf.constant(make_observations()), batch_size=1000)
    expected = greedy_policy.GreedyPolicy(policy).action(time_step).action.numpy()
    assert np.ptp(expected, axis=0).min() > 0.4
    np.testing.assert_allclose(served["actions"], expected, rtol=0, atol=1e-6)


def test_actions_are_the_squashed_means_of_the_network(served, policy):
    """The same in NumPy: ReLU layers, then middle + half * tanh(mean)."""
    x = make_observations().astype(np.float64)
    weights = [v.numpy().astype(np.float64) for v in policy.variables()]
    *hidden, kernel, bias = weights
    for w, b in zip(hidden[::2], hidden[1::2]):
        x = np.maximum(x @ w + b, 0)
    mean = (x @ kernel + bias)[:, :2]
    expected = (HIGH + LOW) / 2 + (HIGH - LOW) / 2 * np.tanh(mean)
    np.testing.assert_allclose(served["actions"], expected, rtol=0, atol=1e-5)


def test_empty_batch(served):
    assert served["empty"].shape == (0, 2)


def test_existing_directory_is_refused_and_untouched(exported, policy):
    before = tiny.read_files(exported)
    with pytest.raises(InputError, match="exists; give the export a directory of its own"):
        export.export_policy(policy, str(exported))
    assert tiny.read_files(exported) == before


def test_failed_export_leaves_nothing(tmp_path, policy):
    """The model is larger than what the process may write, as on a full disk."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, limits[1]))
    try:
        with pytest.raises((OSError, tf.errors.OpError)):
            export.export_policy(policy, str(tmp_path / "model"))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert list(tmp_path.iterdir()) == []


def test_nest_of_observations_is_refused(tmp_path):
    spec = ts.time_step_spec({"a": tf.TensorSpec([2], tf.float32)})
    policy = random_tf_policy.RandomTFPolicy(spec, make_specs()[1])
    with pytest.raises(InputError, match="one observation tensor"):
        export.export_policy(policy, str(tmp_path / "below" / "model"))
    assert list(tmp_path.iterdir()) == []


# Runs.


@pytest.fixture(scope="module")
def exported_run(tmp_path_factory, tiny_run, pendulum_data):
    """The export of a complete run whose data file is gone."""
    output = tmp_path_factory.mktemp("export_run") / "1"
    away = pathlib.Path(f"{pendulum_data}.away")
    os.rename(pendulum_data, away)
    try:
        assert tiny.run_command("export", "--root_dir", tiny_run, "--output", output) == 0
    finally:
        os.rename(away, pendulum_data)
    return output


def test_export_of_a_run_needs_no_data_and_equals_its_own_policy(exported_run, tiny_run):
    observations = np.random.default_rng(2).normal(size=[100, 3]).astype(np.float32)
    actions = [
        load(directory)(observation=tf.constant(observations))["action"].numpy()
        for directory in (exported_run, tiny_run / "policies/greedy/1")
    ]
    assert np.ptp(actions[0]) > 0
    np.testing.assert_array_equal(*actions)


def test_export_takes_the_newest_checkpoint(exported_run, tiny_run, tmp_path):
    """The run has checkpoints at 10 and 20 updates; without the newer, the policy is another."""
    run = tmp_path / "run"
    shutil.copytree(tiny_run, run)
    checkpoints = run / "train" / "checkpoints"
    for path in checkpoints.glob("ckpt-20.*"):
        path.unlink()
    (checkpoints / "checkpoint").write_text(
        'model_checkpoint_path: "ckpt-10"\nall_model_checkpoint_paths: "ckpt-10"\n'
    )
    assert tiny.run_command("export", "--root_dir", run, "--output", tmp_path / "older") == 0
    observations = tf.constant(make_observations()[:, :3])
    older, newer = (
        load(directory)(observation=observations)["action"].numpy()
        for directory in (tmp_path / "older", exported_run)
    )
    assert np.abs(older - newer).max() > 0


def test_export_of_no_run_is_refused(tmp_path):
    with pytest.raises(InputError, match="holds no run"):
        train.export_run(str(tmp_path), str(tmp_path / "1"))


def test_export_of_a_run_without_a_checkpoint_is_refused(tiny_run, tmp_path):
    shutil.copy(tiny_run / "run.json", tmp_path)
    with pytest.raises(InputError, match="no F-BRC checkpoint in"):
        train.export_run(str(tmp_path), str(tmp_path / "1"))
    assert not (tmp_path / "1").exists()
