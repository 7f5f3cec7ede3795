"""Exported policies that act."""

import numpy as np
import pytest
import tensorflow as tf

from fbrc_agent.evaluation import rollouts
from fbrc_agent.policies import saved_policy
from fbrc_agent.utils.errors import InputError


def _save(directory, observation_size=3, action_size=1, output="action", key="serving_default"):
    module = tf.Module()
    module.weights = tf.Variable(tf.fill([observation_size, action_size], 0.1))

    @tf.function(input_signature=[tf.TensorSpec([None, observation_size], name="observation")])
    def act(observation):
        return {output: tf.matmul(observation, module.weights)}

    tf.saved_model.save(module, str(directory), signatures={key: act})
    return str(directory)


def test_a_saved_model_acts_in_its_environment(tmp_path):
    action_fn = saved_policy.load_action_fn(_save(tmp_path / "policy"), 3, 1)
    np.testing.assert_allclose(action_fn(np.ones([2, 3], np.float32)), [[0.3], [0.3]], rtol=1e-6)
    assert rollouts.evaluate(action_fn, "Pendulum-v1", 2, 0).lengths.tolist() == [200, 200]


def test_a_saved_model_without_a_known_rank_is_an_input_error(tmp_path):
    module = tf.Module()
    act = tf.function(lambda observation: {"action": observation})
    spec = tf.TensorSpec(None, tf.float32, "observation")
    tf.saved_model.save(module, str(tmp_path / "p"), signatures=act.get_concrete_function(spec))
    with pytest.raises(InputError, match="observation None float32"):
        saved_policy.load_action_fn(str(tmp_path / "p"), 3, 3)


def test_a_directory_without_saved_model_is_an_input_error(tmp_path):
    with pytest.raises(InputError, match="is not a SavedModel directory"):
        saved_policy.load_action_fn(str(tmp_path), 3, 1)


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"key": "other"}, "signatures .*other.*; one must be 'serving_default'"),
        ({"output": "actions"}, "actions .None, 1. float32; the environment needs"),
        ({"observation_size": 11}, "observation .None, 11. float32"),
        ({"action_size": 3}, "action .None, 3. float32"),
    ],
)
def test_a_saved_model_that_does_not_fit_is_an_input_error(tmp_path, arguments, message):
    directory = _save(tmp_path / "policy", **arguments)
    with pytest.raises(InputError, match=message):
        saved_policy.load_action_fn(directory, 3, 1)
