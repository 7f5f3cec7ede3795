"""Exported policies: plain TensorFlow, equal to the policy in Python."""

import gc
import json
import logging
import os
import pathlib
import resource
import shutil
import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf
from tf_agents.networks import actor_distribution_network
from tf_agents.policies import actor_policy, greedy_policy, py_tf_eager_policy, random_tf_policy
from tf_agents.specs import tensor_spec
from tf_agents.train import actor
from tf_agents.train.utils import train_utils
from tf_agents.trajectories import time_step as ts

from fbrc_agent.agents import fbrc
from fbrc_agent.environments import gymnasium_environment
from fbrc_agent.networks import actor_network
from fbrc_agent.policies import export
from fbrc_agent.training import run_policies
from fbrc_agent.utils.errors import InputError
from tests.helpers import tiny_runs

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


def load(directory, name="serving_default"):
    model = tf.saved_model.load(str(directory))
    function = model.signatures[name]
    function.model = model  # Keeps it alive.
    return function


def signature_of(function):
    """Returns (inputs, outputs) of a signature, each name to (shape, dtype)."""
    arguments, inputs = function.structured_input_signature
    assert arguments == ()
    return tuple(
        {name: (spec.shape.as_list(), spec.dtype) for name, spec in specs.items()}
        for specs in (inputs, function.structured_outputs)
    )


def value_fn(observation, action):
    """Something of each, that NumPy can do."""
    return {
        "q": tf.reduce_sum(observation, axis=1) + tf.reduce_sum(action, axis=1),
        "first": observation[:, 0],
    }


@pytest.fixture(scope="module")
def policy():
    return make_policy()


@pytest.fixture(scope="module")
def exported(tmp_path_factory, policy):
    """The directory of an exported policy."""
    directory = tmp_path_factory.mktemp("export") / "model"
    path = export.export_policy(policy, str(directory), value_fn=value_fn)
    assert path == str(directory / "1")
    return directory / "1"


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


@pytest.mark.parametrize(
    ("name", "inputs", "outputs"),
    [
        (
            "serving_default",
            {"observation": ([None, OBSERVATION_SIZE], tf.float32)},
            {"action": ([None, 2], tf.float32)},
        ),
        (
            "sample",
            {
                "observation": ([None, OBSERVATION_SIZE], tf.float32),
                "seed": ([None], tf.int64),
            },
            {"action": ([None, 2], tf.float32)},
        ),
        (
            "value",
            {
                "observation": ([None, OBSERVATION_SIZE], tf.float32),
                "action": ([None, 2], tf.float32),
            },
            {"q": ([None], tf.float32), "first": ([None], tf.float32)},
        ),
    ],
)
def test_signatures(exported, name, inputs, outputs):
    assert signature_of(load(exported, name)) == (inputs, outputs)


def test_actions_without_tf_agents_are_those_of_the_greedy_policy(served, policy):
    time_step = ts.restart(tf.constant(make_observations()), batch_size=1000)
    expected = greedy_policy.GreedyPolicy(policy).action(time_step).action.numpy()
    assert np.ptp(expected, axis=0).min() > 0.4
    np.testing.assert_allclose(served["actions"], expected, rtol=0, atol=1e-6)


def numpy_normal(policy, observations):
    """Returns mean and standard deviation below the tanh, in float64: ReLU layers, then linear."""
    x = observations.astype(np.float64)
    *hidden, kernel, bias = [v.numpy().astype(np.float64) for v in policy.variables()]
    for w, b in zip(hidden[::2], hidden[1::2]):
        x = np.maximum(x @ w + b, 0)
    mean, log_deviation = np.split(x @ kernel + bias, 2, axis=1)
    return mean, np.exp(np.clip(log_deviation, -20, 2))


def squash(x):
    return (HIGH + LOW) / 2 + (HIGH - LOW) / 2 * np.tanh(x)


def test_actions_are_the_squashed_means_of_the_network(served, policy):
    mean, _ = numpy_normal(policy, make_observations())
    np.testing.assert_allclose(served["actions"], squash(mean), rtol=0, atol=1e-5)


def test_empty_batch(served):
    assert served["empty"].shape == (0, 2)


# Samples.


def sample(exported, observations, seeds):
    return load(exported, "sample")(
        observation=tf.constant(observations), seed=tf.constant(seeds, tf.int64)
    )["action"].numpy()


def test_a_row_of_a_sample_is_a_function_of_its_observation_and_seed(exported):
    observations, seeds = make_observations(50), np.arange(50)
    together = sample(exported, observations, seeds)
    order = np.random.default_rng(0).permutation(50)
    np.testing.assert_array_equal(
        sample(exported, observations[order], seeds[order]), together[order]
    )
    np.testing.assert_array_equal(sample(exported, observations[7:8], [7]), together[7:8])
    assert (sample(exported, observations, seeds + 50) != together).any(axis=1).mean() > 0.5
    assert sample(exported, observations[:0], []).shape == (0, 2)


def test_exports_leave_nothing_in_memory(tmp_path, policy):
    """A run exports after each evaluation: thousands of times."""

    def count():
        export.export_policy(policy, str(tmp_path / "model"))
        gc.collect()
        return len(gc.get_objects())

    counts = [count() for _ in range(6)]
    assert counts[-1] - counts[2] < 100, counts  # One export makes thousands.


def test_samples_have_the_distribution_of_the_policy(exported, policy):
    """One observation, 20,000 seeds: the normal below the tanh has the network's moments."""
    size = 20_000
    # An observation at which neither mean nor deviation saturates the tanh in float32.
    observations = make_observations(200) * 0.1
    mean, deviation = numpy_normal(policy, observations)
    row = np.argmin(np.max(np.abs(mean) + deviation, axis=1))
    assert np.max(np.abs(mean[row]) + 2 * deviation[row]) < 3
    actions = sample(
        exported, np.repeat(observations[row : row + 1], size, axis=0), np.arange(size)
    )
    assert (actions >= LOW).all() and (actions <= HIGH).all()
    x = np.arctanh((actions - (HIGH + LOW) / 2) / ((HIGH - LOW) / 2) * (1 - 1e-7))
    error = 5 * deviation[row] / np.sqrt(size)
    assert (np.abs(np.median(x, axis=0) - mean[row]) < 1.3 * error).all()
    quartiles = np.quantile(x, [0.25, 0.75], axis=0)
    np.testing.assert_allclose(np.ptp(quartiles, axis=0) / 1.34898, deviation[row], rtol=0.05)
    noise = (x - mean[row]) / deviation[row]
    assert abs(np.mean(np.clip(noise[:, 0], -3, 3) * np.clip(noise[:, 1], -3, 3))) < 5 / np.sqrt(
        size
    )


# Values, and inputs that are not numbers.


def test_values(exported):
    observations, actions = make_observations(10), np.ones([10, 2], np.float32)
    outputs = load(exported, "value")(
        observation=tf.constant(observations), action=tf.constant(actions)
    )
    np.testing.assert_allclose(outputs["q"], observations.sum(axis=1) + 2, atol=1e-5)
    np.testing.assert_array_equal(outputs["first"], observations[:, 0])


@pytest.mark.parametrize("number", [np.nan, np.inf, -np.inf])
def test_a_row_that_is_not_finite_gives_nan_and_leaves_the_others(exported, number):
    observations, actions = make_observations(4), np.ones([4, 2], np.float32)
    seeds = tf.range(4, dtype=tf.int64)
    bad = observations.copy()
    bad[2, 1] = number
    for name, more in (
        ("serving_default", {}),
        ("sample", {"seed": seeds}),
        ("value", {"action": tf.constant(actions)}),
    ):
        function = load(exported, name)
        good_outputs = function(observation=tf.constant(observations), **more)
        for key, output in function(observation=tf.constant(bad), **more).items():
            assert np.isnan(output[2]).all()
            np.testing.assert_array_equal(
                np.delete(output, 2, axis=0), np.delete(good_outputs[key], 2, axis=0)
            )


def test_an_action_that_is_not_finite_gives_nan(exported):
    actions = np.array([[0.0, np.nan], [0.0, 0.0]], np.float32)
    outputs = load(exported, "value")(
        observation=tf.constant(make_observations(2)), action=tf.constant(actions)
    )
    assert np.isnan(outputs["q"]).tolist() == [True, False]


def test_observations_far_from_the_data_give_actions_within_the_bounds(exported):
    actions = load(exported)(observation=tf.constant(1e30 * make_observations(100)))["action"]
    assert (actions.numpy() >= LOW).all() and (actions.numpy() <= HIGH).all()


# What else is written.


def test_the_weights_are_in_the_file_once(tmp_path):
    """The action-only model is at most a fifth larger than the actor, here 2 x 128."""
    time_step_spec, action_spec = make_specs()
    network = actor_network.create_actor_network(
        time_step_spec.observation, action_spec, fc_layer_params=(256, 256, 256)
    )
    policy = actor_policy.ActorPolicy(time_step_spec, action_spec, actor_network=network)
    path = pathlib.Path(export.export_policy(policy, str(tmp_path / "model")))
    weights = sum(v.numpy().nbytes for v in policy.variables())
    assert weights < sum(f.stat().st_size for f in path.rglob("*") if f.is_file()) < 1.2 * weights


def test_a_policy_that_is_not_tanh_normal_has_no_sample(tmp_path):
    time_step_spec, action_spec = make_specs()
    network = actor_distribution_network.ActorDistributionNetwork(
        time_step_spec.observation, action_spec, fc_layer_params=(4,)
    )
    policy = actor_policy.ActorPolicy(time_step_spec, action_spec, actor_network=network)
    path = export.export_policy(policy, str(tmp_path / "model"))
    assert list(tf.saved_model.load(path).signatures) == ["serving_default"]


def test_existing_version_is_refused_and_untouched(exported, policy):
    before = tiny_runs.read_files(exported)
    with pytest.raises(InputError, match="model/1 exists; give the export a version of its own"):
        export.export_policy(policy, str(exported.parent), version=1)
    assert tiny_runs.read_files(exported) == before
    assert [path.name for path in exported.parent.iterdir()] == ["1"]


def test_failed_export_leaves_nothing(tmp_path, policy):
    """The model is larger than what the process may write, as on a full disk."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, limits[1]))
    try:
        with pytest.raises((OSError, tf.errors.OpError)):
            export.export_policy(policy, str(tmp_path / "model"))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert list(tmp_path.rglob("*")) == [tmp_path / "model"]


def test_nest_of_observations_is_refused(tmp_path):
    spec = ts.time_step_spec({"a": tf.TensorSpec([2], tf.float32)})
    policy = random_tf_policy.RandomTFPolicy(spec, make_specs()[1])
    with pytest.raises(InputError, match="one observation tensor"):
        export.export_policy(policy, str(tmp_path / "below" / "model"))
    assert list(tmp_path.iterdir()) == []


def test_the_model_card_says_where_the_policy_comes_from(tmp_path, policy):
    origin = {
        "algorithm": "Some-RL",
        "task": "Pendulum-v1",
        "seed": 7,
        "data": {"source": "mine", "transitions": 12, "checksum": "abc"},
        "steps": {"model": 3, "some_rl": 5},
        "scores": None,
    }
    path = pathlib.Path(export.export_policy(policy, str(tmp_path / "model"), origin=origin))
    card = json.loads((path / "policy.json").read_text())
    assert {key: card[key] for key in origin} == origin
    page = (path / "README.md").read_text()
    assert (
        "A greedy policy for Pendulum-v1, trained offline by Some-RL: 3 updates of model, "
        "5 updates of some_rl, seed 7.\nData: mine, 12 transitions, SHA-256 of its arrays abc.\n"
    ) in page


# Runs.


@pytest.fixture(scope="module")
def exports_of_run(tmp_path_factory, tiny_run, pendulum_data):
    """The exports of a complete run whose data file is gone, by format."""
    directory = tmp_path_factory.mktemp("exports_of_run")
    away = pathlib.Path(f"{pendulum_data}.away")
    os.rename(pendulum_data, away)
    try:
        for arguments in (["serving", "--with_value"], ["tf_agents", "--version", "7"]):
            output = directory / arguments[0]
            command = ("export", "--root_dir", tiny_run, "--output", output, "--format")
            assert tiny_runs.run_command(*command, *arguments) == 0
    finally:
        os.rename(away, pendulum_data)
    return {"serving": directory / "serving/1", "tf_agents": directory / "tf_agents/7"}


def pendulum_observations(size=100):
    return np.random.default_rng(2).normal(size=[size, 3]).astype(np.float32)


def test_export_of_a_run_needs_no_data_and_equals_its_own_policy(exports_of_run, tiny_run):
    actions = [
        load(directory)(observation=tf.constant(pendulum_observations()))["action"].numpy()
        for directory in (exports_of_run["serving"], tiny_run / "policies/greedy/20")
    ]
    assert np.ptp(actions[0]) > 0
    np.testing.assert_array_equal(*actions)


def test_value_is_offset_plus_log_mu(exports_of_run):
    function = load(exports_of_run["serving"], "value")
    actions = tf.constant(np.linspace(-1.9, 1.9, 100, dtype=np.float32)[:, np.newaxis])
    outputs = function(observation=tf.constant(pendulum_observations()), action=actions)
    assert set(outputs) == {"q", "log_mu", "offset"}
    np.testing.assert_allclose(outputs["q"], outputs["offset"] + outputs["log_mu"], rtol=1e-6)
    empty = function(observation=tf.zeros([0, 3]), action=tf.zeros([0, 1]))
    assert all(output.shape == (0,) for output in empty.values())


def test_log_mu_is_a_density_over_the_actions(exports_of_run):
    """Its integral over [-2, 2] is 1; the midpoint rule, float64 of the exported float32."""
    actions = ((np.arange(20_000) + 0.5) / 20_000 * 4 - 2).astype(np.float32)[:, np.newaxis]
    observations = np.repeat(pendulum_observations(1), len(actions), axis=0)
    log_mu = load(exports_of_run["serving"], "value")(
        observation=tf.constant(observations), action=tf.constant(actions)
    )["log_mu"].numpy()
    np.testing.assert_allclose(np.mean(np.exp(log_mu.astype(np.float64))) * 4, 1, rtol=0.01)


def test_the_tf_agents_format_is_written_in_silence(tmp_path, caplog, recwarn):
    filters = list(logging.getLogger("absl").filters)
    export.export_tf_agents_policy(make_policy(), str(tmp_path / "policy"))
    assert caplog.messages == []
    assert [str(w.message) for w in recwarn if w.category is UserWarning] == []
    assert logging.getLogger("absl").filters == filters


def test_the_tf_agents_format_serves_actors(exports_of_run, tiny_run):
    """TF-Agents' own loader and Actor run it; its actions are those of the other format."""
    path = str(exports_of_run["tf_agents"])
    policy = py_tf_eager_policy.SavedModelPyTFEagerPolicy(path, load_specs_from_pbtxt=True)
    environment = gymnasium_environment.GymnasiumEnvironment("Pendulum-v1", seed=0)
    seen = []
    worker = actor.Actor(
        environment,
        policy,
        train_utils.create_train_step(),
        steps_per_run=20,
        observers=[lambda trajectory: seen.append((trajectory.observation, trajectory.action))],
    )
    worker.run()
    environment.close()
    observations, actions = (np.stack(x) for x in zip(*seen))
    expected = load(tiny_run / "policies/greedy/20")(observation=tf.constant(observations))[
        "action"
    ]
    np.testing.assert_allclose(actions, expected, atol=1e-6)


def test_export_takes_the_newest_checkpoint(exports_of_run, tiny_run, tmp_path):
    """The run has checkpoints at 10 and 20 updates; without the newer, the policy is another."""
    run = tmp_path / "run"
    shutil.copytree(tiny_run, run)
    shutil.rmtree(run / "fbrc" / "train" / "checkpoints" / "ckpt-20")
    assert tiny_runs.run_command("export", "--root_dir", run, "--output", tmp_path / "older") == 0
    observations = tf.constant(make_observations()[:, :3])
    older, newer = (
        load(directory)(observation=observations)["action"].numpy()
        for directory in (tmp_path / "older/1", exports_of_run["serving"])
    )
    assert np.abs(older - newer).max() > 0


def test_export_of_no_run_is_refused(tmp_path):
    with pytest.raises(InputError, match="holds no run"):
        run_policies.export_run(str(tmp_path), str(tmp_path / "model"), fbrc.fbrc())


def test_export_of_a_run_without_a_checkpoint_is_refused(tiny_run, tmp_path):
    shutil.copy(tiny_run / "run.json", tmp_path)
    with pytest.raises(InputError, match="no checkpoint in"):
        run_policies.export_run(str(tmp_path), str(tmp_path / "model"), fbrc.fbrc())
    assert not (tmp_path / "model").exists()


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"policy_format": "onnx"}, "--format is 'onnx'; it must be serving or tf_agents."),
        (
            {"policy_format": "tf_agents", "with_value": True},
            "--with_value adds a signature to the format 'serving' alone.",
        ),
    ],
)
def test_arguments_that_do_not_fit_are_refused(tiny_run, tmp_path, arguments, sentence):
    with pytest.raises(InputError, match=sentence):
        run_policies.export_run(str(tiny_run), str(tmp_path / "model"), fbrc.fbrc(), **arguments)
