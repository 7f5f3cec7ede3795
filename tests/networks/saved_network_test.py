"""A trained network on disk: it comes back as it was, whatever gin says by then."""

import os

import gin
import numpy as np
import pytest
import tensorflow as tf
from tf_agents.networks import sequential

from fbrc_agent.agents import behavior
from fbrc_agent.networks import behavior_network, saved_network
from fbrc_agent.utils import errors

DATA = {
    **{"source": "x.hdf5", "checksum": "abc", "observation_size": 3, "action_size": 2},
    **{"action_minimum": [-2.0, -2.0], "action_maximum": [2.0, 3.0]},
}
DESCRIPTION = {"algorithm": "behavior", "data": DATA, "result": {"steps": 5}}


def make_network(joint=False):
    time_step_spec, action_spec = saved_network.specs_from_description(DATA)
    net = behavior_network.MixtureBehaviorNetwork(
        time_step_spec.observation,
        action_spec,
        num_components=3,
        joint=joint,
        fc_layer_params=(7, 6),
        log_std_bounds=(-4.0, 1.0),
    )
    net.create_variables()
    return net


def saved(directory, joint=False):
    net = make_network(joint)
    saved_network.save(str(directory), net, DESCRIPTION)
    return net


@pytest.fixture(autouse=True)
def _clean_gin():
    yield
    gin.clear_config()


@pytest.mark.parametrize("joint", [False, True])
def test_behavior_network_comes_back_with_its_own_architecture(tmp_path, joint):
    net = saved(tmp_path, joint)
    gin.bind_parameter("MixtureBehaviorNetwork.num_components", 9)
    gin.bind_parameter("load_behavior_network.directory", str(tmp_path))
    loaded = behavior.load_behavior_network()
    generator = np.random.default_rng(0)
    states = tf.constant(generator.standard_normal((20, 3)), tf.float32)
    actions = tf.constant(generator.uniform(-2.0, 2.0, (20, 2)), tf.float32)
    np.testing.assert_array_equal(
        loaded(states)[0].log_prob(actions), net(states)[0].log_prob(actions)
    )
    assert loaded.output_tensor_spec == net.output_tensor_spec


def test_description_is_what_was_given_and_the_architecture(tmp_path):
    net = saved(tmp_path)
    description = saved_network.read_description(str(tmp_path))
    architecture = {**net.architecture, "fc_layer_params": [7, 6], "log_std_bounds": [-4.0, 1.0]}
    assert description == {**DESCRIPTION, "architecture": architecture}


def test_weights_come_back_in_place(tmp_path):
    net, other = saved(tmp_path), make_network()
    assert saved_network.checksum(other) != saved_network.checksum(net)
    saved_network.restore(str(tmp_path), other)
    assert saved_network.checksum(other) == saved_network.checksum(net)


def test_any_network_is_saved(tmp_path):
    nets = [
        sequential.Sequential([tf.keras.layers.Dense(2)], input_spec=tf.TensorSpec([3]))
        for _ in range(2)
    ]
    nets[0].create_variables()
    saved_network.save(str(tmp_path), nets[0], DESCRIPTION)
    saved_network.restore(str(tmp_path), nets[1])
    assert saved_network.checksum(nets[0]) == saved_network.checksum(nets[1])
    assert saved_network.read_description(str(tmp_path))["architecture"] is None
    with pytest.raises(errors.InputError, match="holds no trained behavior network"):
        behavior.load_behavior_network(str(tmp_path))


def test_checksum_depends_on_the_shapes():
    nets = [sequential.Sequential([tf.keras.layers.Dense(n, use_bias=False)]) for n in (2, 3)]
    for net, inputs in zip(nets, (3, 2)):
        net.create_variables(tf.TensorSpec([inputs]))
        net.set_weights([tf.ones_like(v) for v in net.variables])
    assert saved_network.checksum(nets[0]) != saved_network.checksum(nets[1])


def test_nothing_is_left_of_a_failed_save(tmp_path):
    with pytest.raises(TypeError):
        saved_network.save(str(tmp_path), make_network(), {"data": {"x": object()}})
    assert os.listdir(tmp_path) == []


def test_a_directory_without_a_network_is_refused(tmp_path):
    assert saved_network.read_description(str(tmp_path)) is None
    with pytest.raises(errors.InputError, match="holds no trained behavior network"):
        behavior.load_behavior_network(str(tmp_path))


def test_other_shapes_are_refused(tmp_path):
    saved(tmp_path, joint=True)
    with pytest.raises(errors.InputError, match="trained/weights cannot be read"):
        saved_network.restore(str(tmp_path), make_network(joint=False))


def test_other_layers_are_refused(tmp_path):
    saved(tmp_path)
    other = sequential.Sequential([tf.keras.layers.Dense(2)], input_spec=tf.TensorSpec([3]))
    with pytest.raises(errors.InputError, match="trained/weights cannot be read"):
        saved_network.restore(str(tmp_path), other)


DAMAGES = {
    "missing": lambda path: path.unlink(),
    "cut": lambda path: path.write_bytes(path.read_bytes()[:100]),
    "flipped": lambda path: path.write_bytes(path.read_bytes()[:-1] + b"?"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_damaged_weights_are_named(tmp_path, damage):
    saved(tmp_path)
    DAMAGES[damage](tmp_path / "trained" / "weights.data-00000-of-00001")
    with pytest.raises(
        errors.InputError, match="trained/weights cannot be read .* remove .*/train"
    ):
        behavior.load_behavior_network(str(tmp_path))


@pytest.mark.parametrize("name", ["observation_size", "action_maximum"])
def test_a_description_without_specs_is_refused(name):
    data = {key: value for key, value in DATA.items() if key != name}
    with pytest.raises(errors.InputError, match=f"x.hdf5 has no entry '{name}'"):
        saved_network.specs_from_description(data)
