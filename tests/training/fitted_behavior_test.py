"""The density on disk: it comes back as it was, whatever gin says by then."""

import os

import gin
import numpy as np
import pytest
import tensorflow as tf

from fbrc_agent.datasets import offline_data
from fbrc_agent.networks import behavior_network
from fbrc_agent.training import fitted_behavior, run_directory
from fbrc_agent.utils import errors


def data():
    generator = np.random.default_rng(0)
    states = generator.standard_normal((20, 3))
    actions = generator.uniform(-2.0, 2.0, (20, 2))
    zeros = np.zeros(20)
    return offline_data.OfflineData.from_arrays(
        states, actions, zeros, states, zeros + 1, action_bounds=(-2.0, [2.0, 3.0])
    )


def saved(directory, joint):
    offline = data()
    net = behavior_network.MixtureBehaviorNetwork(
        offline.time_step_spec.observation,
        offline.action_spec,
        num_components=3,
        joint=joint,
        fc_layer_params=(7, 6),
        log_std_bounds=(-4.0, 1.0),
    )
    net.create_variables()
    description = run_directory.describe_data(offline)
    fitted_behavior.save_behavior_network(str(directory), net, description, {"steps": 5})
    return net, offline


@pytest.fixture(autouse=True)
def _clean_gin():
    yield
    gin.clear_config()


@pytest.mark.parametrize("joint", [False, True])
def test_density_comes_back_with_its_own_architecture(tmp_path, joint):
    net, offline = saved(tmp_path, joint)
    gin.bind_parameter("MixtureBehaviorNetwork.num_components", 9)
    gin.bind_parameter("load_behavior_network.directory", str(tmp_path))
    loaded = fitted_behavior.load_behavior_network()
    states, actions = tf.constant(offline.observations), tf.constant(offline.actions)
    np.testing.assert_array_equal(
        loaded(states)[0].log_prob(actions), net(states)[0].log_prob(actions)
    )
    assert loaded.output_tensor_spec == offline.action_spec


def test_description_holds_data_and_result(tmp_path):
    _, offline = saved(tmp_path, joint=False)
    description = fitted_behavior.read_description(str(tmp_path))
    assert description["result"] == {"steps": 5}
    assert description["data"]["checksum"] == offline.checksum


def test_nothing_is_left_of_a_failed_save(tmp_path):
    net, offline = saved(tmp_path / "first", joint=False)
    with pytest.raises(TypeError):
        fitted_behavior.save_behavior_network(str(tmp_path / "second"), net, {"x": object()}, {})
    assert os.listdir(tmp_path / "second") == []


def test_a_directory_without_a_density_is_refused(tmp_path):
    with pytest.raises(errors.InputError, match="holds no fitted density"):
        fitted_behavior.load_behavior_network(str(tmp_path))
