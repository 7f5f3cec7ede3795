"""gin/: every file parses, binds names that exist, and builds what it states."""

import os
import pathlib
import subprocess
import sys

import gin
import pytest
import tensorflow as tf
from tf_agents.specs import tensor_spec
from tf_agents.trajectories import time_step as ts

import fbrc_agent
from fbrc_agent.agents import behavior as behavior_agent
from fbrc_agent.agents import fbrc as fbrc_agents
from fbrc_agent.experiments import collect
from fbrc_agent.networks import behavior_network
from fbrc_agent.training import configuration, trainer
from tests.helpers import tiny_runs

GIN = tiny_runs.ROOT / "gin"
TRAINING = ["behavior.gin", "fbrc.gin", "hopper.gin", "quickstart.gin"]
RIVALS = ["bc.gin", "bc_d4rl.gin", "cql.gin", "sac.gin"]
COLLECTING = sorted(str(pathlib.Path("collect") / p.name) for p in GIN.glob("collect/*.gin"))
NUM_ACTIONS = 3


@pytest.fixture(autouse=True)
def clean_configuration():
    gin.clear_config()
    yield
    gin.clear_config()


def make_specs():
    time_step_spec = ts.time_step_spec(tf.TensorSpec([11], tf.float32, "observation"))
    action_spec = tensor_spec.BoundedTensorSpec([NUM_ACTIONS], tf.float32, -1.0, 1.0, "action")
    return time_step_spec, action_spec


def make_behavior():
    time_step_spec, action_spec = make_specs()
    return behavior_network.MixtureBehaviorNetwork(time_step_spec.observation, action_spec)


def layer_sizes(network):
    """Returns the units of all dense layers, in order."""
    return [v.shape[1] for v in network.trainable_variables if v.shape.rank == 2]


def learning_rate(optimizer, step=0):
    rate = optimizer.learning_rate
    return float(rate(step) if callable(rate) else rate)


# Records, exceptions and data hold values; there is nothing to configure.
NOT_CONFIGURABLE = {"FbrcLossInfo", "InputError", "OfflineData", "save_d4rl_hdf5", "train"}


@pytest.mark.parametrize("name", sorted(set(fbrc_agent.__all__) - NOT_CONFIGURABLE))
def test_public_name_is_configurable_under_its_own_name(name):
    public = getattr(fbrc_agent, name)
    assert gin.get_configurable(name).__name__ == public.__name__ == name
    assert gin.get_configurable(f"{public.__module__}.{name}") is gin.get_configurable(name)


def test_every_file_imports_what_it_binds():
    """Each in a process that has imported nothing of this package but the parser."""
    code = """if True:
        import os, sys, tensorflow, tf_agents
        from fbrc_agent.training import configuration
        assert not any(name.startswith("fbrc_agent.agents") for name in sys.modules)
        for path in sys.argv[1:]:
            pid = os.fork()
            if pid == 0:
                configuration.parse([path], [])
                os._exit(0)
            if os.waitpid(pid, 0)[1]:
                print("not parsed:", path)
    """
    paths = sorted(map(str, GIN.rglob("*.gin")))
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code, *paths],
        cwd=tiny_runs.ROOT,
        env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"},
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stdout) == (0, ""), done.stderr
    assert "Path not found" not in done.stderr


def test_these_are_all_files():
    found = {p.relative_to(GIN).as_posix() for p in GIN.rglob("*.gin")}
    assert found == {"common.gin", *TRAINING, *RIVALS, *COLLECTING}


@pytest.mark.parametrize("name", RIVALS)
def test_rival_has_the_same_budget(name):
    configuration.parse([name], [])
    assert trainer.configured_algorithm().name == name.split(".")[0].split("_")[0]
    assert gin.query_parameter("%BATCH_SIZE") == 256
    assert gin.query_parameter("%STEPS") == (500_000 if name == "bc_d4rl.gin" else 1_000_000)


@pytest.mark.parametrize("name", TRAINING)
def test_training_file_gives_all_arguments_of_train(name):
    configuration.parse([name], [])
    assert {"algorithm", "task", "steps"} <= set(gin.get_bindings(trainer.train))
    assert trainer.configured_algorithm().name == ("behavior" if "behavior" in name else "fbrc")


@pytest.mark.parametrize("name", COLLECTING)
def test_collecting_file_gives_all_arguments_of_collect(name):
    configuration.parse([name], [])
    assert {"task", "level", "seed"} <= set(gin.get_bindings(collect.collect))


@pytest.mark.parametrize("name", TRAINING)
def test_behavior_agent_has_the_stated_values(name):
    configuration.parse([name], [])
    behavior = make_behavior()
    agent = behavior_agent.BehaviorAgent(*make_specs(), behavior)
    # Per action dimension 5 components with a weight, a location and a scale each.
    assert layer_sizes(behavior) == [256, 256, 3 * 5 * NUM_ACTIONS]
    assert agent._target_entropy == -NUM_ACTIONS
    for optimizer in (agent._optimizer, agent._alpha_optimizer):
        total = gin.query_parameter("%BEHAVIOR_STEPS")
        total = gin.query_parameter("%STEPS") if not isinstance(total, int) else total
        first, second = round(0.8 * total), round(0.9 * total)
        steps = (0, first, first + 1, second, second + 1)
        rates = [learning_rate(optimizer, step) for step in steps]
        decayed = [1e-3] * 5 if name == "quickstart.gin" else [1e-3, 1e-3, 1e-4, 1e-4, 1e-5]
        assert rates == pytest.approx(decayed)
    assert agent._optimizer is not agent._alpha_optimizer


@pytest.mark.parametrize("name", TRAINING)
def test_fbrc_agent_has_the_stated_values(name):
    configuration.parse([name], [])
    agent = fbrc_agents.create_fbrc_agent(*make_specs(), 0, {"behavior": make_behavior()})
    assert agent._gamma == 0.99
    assert agent._critic_loss_weight == 1.0
    assert agent._reward_bonus == 5.0
    assert agent._gradient_penalty_weight == 0.1
    assert agent._include_critic_entropy_term is False
    assert agent._use_log_alpha_in_alpha_loss is False
    assert agent._target_entropy == -NUM_ACTIONS
    assert float(agent.alpha) == 1.0
    optimizers = [agent._actor_optimizer, agent._critic_optimizer, agent._alpha_optimizer]
    assert [learning_rate(o) for o in optimizers] == pytest.approx([3e-4] * 3)
    assert len({id(o) for o in optimizers}) == 3
    assert layer_sizes(agent._actor_network) == [256, 256, 256, 2 * NUM_ACTIONS]
    for critic in (agent._critic_network_1, agent._critic_network_2):
        assert layer_sizes(critic) == [256, 256, 256, 1]


def test_targets_move_by_tau_at_every_step():
    configuration.parse(["fbrc.gin"], [])
    agent = fbrc_agents.create_fbrc_agent(*make_specs(), 0, {"behavior": make_behavior()})
    agent.initialize()
    source = agent._critic_network_1.trainable_variables[0]
    target = agent._target_critic_network_1.trainable_variables[0]
    source.assign_add(tf.ones_like(source))
    before = target.numpy()
    agent._update_target()
    assert (target.numpy() - before).mean() == pytest.approx(0.005, rel=1e-3)


def test_full_setting_has_the_papers_sizes():
    configuration.parse(["fbrc.gin"], [])
    values = [gin.query_parameter(f"%{macro}") for macro in ("TASK", "DATA", "BATCH_SIZE", "STEPS")]
    assert values == [None, None, 256, 1_000_000]
    assert gin.get_bindings(trainer.train)["pretraining_steps"] == {"behavior": 1_000_000}


@pytest.mark.parametrize(
    "name, task, data",
    [
        ("hopper.gin", "Hopper-v4", "embedded:hopper-medium-replay"),
        ("quickstart.gin", "Pendulum-v1", "embedded:pendulum-medium-replay"),
    ],
)
def test_shortened_setting_overrides_the_full_one(name, task, data):
    configuration.parse([name], [])
    assert [gin.query_parameter(f"%{macro}") for macro in ("TASK", "DATA")] == [task, data]
    assert gin.query_parameter("%STEPS") < 1_000_000
    assert gin.query_parameter("FbrcAgent.reward_bonus") == 5.0


def test_the_operative_config_is_for_reading(tiny_run):
    lines = (tiny_run / "operative_config.gin").read_text().splitlines()
    assert max(map(len, lines)) < 300
    assert (
        sum(line.startswith("# ==") for line in lines) == sum("Parameters" in x for x in lines) + 1
    )
