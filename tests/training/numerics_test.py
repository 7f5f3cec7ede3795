"""Training that gives NaN stops with exit code 3, and its checkpoints stay good."""

import numpy as np
import pytest
import tensorflow as tf

from fbrc_agent.agents import algorithm
from fbrc_agent.datasets import offline_data
from fbrc_agent.training import checkpoints, numerics, run_log
from fbrc_agent.utils import errors
from tests.helpers import tiny_runs


def refused(capsys):
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("train: ")]
    assert len(lines) == 1
    return lines[0]


def assert_good_checkpoints(root_dir):
    newest = checkpoints.newest_complete(checkpoints.directory_of(str(root_dir / "fbrc")))
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
    assert "likely cause: the learning rate of " in sentence
    assert "actor_optimizer is 1e+30" in sentence
    (event,) = run_log.read_events(str(tmp_path / "run"))
    assert (event["stage"], event["event"]) == ("fbrc", "not_finite")
    assert f"{event['tensor']} is {event['value']} at step {event['step']}" in sentence
    assert_good_checkpoints(tmp_path / "run")


class _Agent(tf.Module):
    def __init__(self, value=1.0):
        super().__init__()
        self.kernel = tf.Variable([1.0, value], name="kernel")


def numbers(agent):
    size = 6
    data = offline_data.OfflineData.from_arrays(
        observations=np.zeros([size, 2]),
        actions=np.linspace(-0.9, 0.9, size)[:, np.newaxis],
        rewards=np.linspace(-2.0, 1.0, size),
        next_observations=np.zeros([size, 2]),
        discounts=np.ones(size),
    )
    method = algorithm.Algorithm(
        name="toy",
        label="toy",
        create_agent=lambda *args: agent,
        discounting=lambda agent: algorithm.Discounting(1.0, 0.0, 0.9),
        q_names=("q_data", "q_policy"),
        likely_causes=lambda agent: ["toy.weight is 0"],
    )
    return numerics.Numerics(method, agent, data)


def test_a_critic_beyond_any_return_diverges():
    checked = numbers(_Agent())  # |reward| is at most 2, so |return| at most 20.
    assert checked.max_q == pytest.approx(20.0)
    assert checked.largest_q({"q_data": -19.9, "q_policy": 19.8}) == 19.9 < checked.max_q
    assert checked.largest_q({"q_data": 0.0, "q_policy": -20.5}) == 20.5 > checked.max_q
    assert checked.likely_cause() == "likely cause: toy.weight is 0"


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_bad_weights_are_named(value):
    with pytest.raises(errors.NotFiniteError, match=f"kernel is {value} at step 5 of the toy"):
        numbers(_Agent(value)).check_weights(5)
    numbers(_Agent()).check_weights(5)


def test_a_bad_loss_is_named_with_the_last_finite_values():
    checked = numbers(_Agent())
    checked.check_losses(10, {"critic_loss": 2.5})
    with pytest.raises(errors.NotFiniteError, match="critic_loss is nan at step 20.*loss 2.5") as e:
        checked.check_losses(20, {"critic_loss": np.nan})
    assert (e.value.tensor, e.value.step, e.value.stage) == ("critic_loss", 20, "toy")
    assert np.isnan(e.value.value)
