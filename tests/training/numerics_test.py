"""Training that gives NaN stops with exit code 3, and its checkpoints stay good."""

import numpy as np
import pytest
import tensorflow as tf

from fbrc_agent.datasets import offline_data, sources
from fbrc_agent.training import numerics
from fbrc_agent.utils import errors
from tests.helpers import tiny_runs


def refused(capsys):
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("train: ")]
    assert len(lines) == 1
    return lines[0]


def assert_good_checkpoints(root_dir):
    newest = tf.train.latest_checkpoint(str(root_dir / "train" / "checkpoints"))
    if newest is not None:
        reader = tf.train.load_checkpoint(newest)
        for name in reader.get_variable_to_shape_map():
            tensor = reader.get_tensor(name)
            assert not np.issubdtype(tensor.dtype, np.floating) or np.all(np.isfinite(tensor))


def test_a_learning_rate_of_ten(tmp_path, pendulum_data, capsys):
    bindings = ["critic/Adam.learning_rate = 10.0", "actor/Adam.learning_rate = 1e30"]
    code = tiny_runs.train(tmp_path / "run", pendulum_data, bindings=bindings, STEPS=200)
    assert code == 3
    sentence = refused(capsys)
    assert "of the fbrc stage" in sentence
    assert "likely cause: actor_optimizer has the learning rate 1e+30" in sentence
    assert_good_checkpoints(tmp_path / "run")


def test_a_nan_in_the_data_after_validation(tmp_path, pendulum_data, capsys, monkeypatch):
    load = sources.load_dataset

    def spoiled(*args, **kwargs):
        data = load(*args, **kwargs)
        data.rewards.flags.writeable = True
        data.rewards[7] = np.nan
        return data

    monkeypatch.setattr(sources, "load_dataset", spoiled)
    code = tiny_runs.train(tmp_path / "run", pendulum_data, STEPS=100)
    assert code == 3
    assert "rewards of" in (sentence := refused(capsys))
    assert "are not finite in row 7" in sentence
    assert_good_checkpoints(tmp_path / "run")


class _Agent(tf.Module):
    _gamma = 0.9
    _include_critic_entropy_term = False
    _reward_scale_factor = 1.0
    _reward_bonus = 0.5
    _gradient_penalty_weight = 0.0

    def __init__(self, value=1.0):
        super().__init__()
        self.kernel = tf.Variable([1.0, value], name="kernel")


def watch(agent):
    size = 6
    data = offline_data.OfflineData.from_arrays(
        observations=np.zeros([size, 2]),
        actions=np.linspace(-0.9, 0.9, size)[:, np.newaxis],
        rewards=np.linspace(-2.0, 1.0, size),
        next_observations=np.zeros([size, 2]),
        discounts=np.ones(size),
    )
    return numerics.Watch(agent, "fbrc", data)


def test_a_critic_beyond_any_return_is_warned_about_once():
    watched = watch(_Agent())  # |reward + bonus| is at most 1.5, so |return| at most 15
    assert watched.check_losses(10, {"q_data": -14.9, "q_policy": 14.9}) is None
    warning = watched.check_losses(20, {"q_data": 0.0, "q_policy": -15.5})
    assert "at step 20" in warning and "15.5" in warning and "up to 15 only" in warning
    assert "gradient_penalty_weight is 0" in warning
    assert watched.check_losses(30, {"q_data": 0.0, "q_policy": -15.5}) is None


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_bad_weights_are_named(value):
    with pytest.raises(errors.BadNumbersError, match=f"kernel is {value} at step 5 of the fbrc"):
        watch(_Agent(value)).check_weights(5)
    watch(_Agent()).check_weights(5)


def test_a_bad_loss_is_named_with_the_last_good_values():
    watched = watch(_Agent())
    watched.check_losses(10, {"critic_loss": 2.5})
    with pytest.raises(errors.BadNumbersError, match="critic_loss is nan at step 20.*loss 2.5"):
        watched.check_losses(20, {"critic_loss": np.nan})
