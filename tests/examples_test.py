"""examples/: both pipelines run with each of the three agents, two lines apart."""

import contextlib
import difflib
import pathlib
import re
import runpy
import subprocess
import sys
from typing import NamedTuple

import gin
import numpy as np
import pytest
import tensorflow as tf
from absl import logging
from tf_agents.policies import policy_loader
from tf_agents.trajectories import time_step as ts

from fbrc_agent.agents import behavior
from tests.helpers import tiny_runs

EXAMPLES = tiny_runs.ROOT / "examples"
NUM_STEPS = 10


class Agent(NamedTuple):
    import_line: str
    constructor: str
    gin_file: str


SAC = Agent("from tf_agents.agents.sac import sac_agent", "sac_agent.SacAgent", "sac.gin")
CQL_SAC = Agent(
    "from tf_agents.agents.cql import cql_sac_agent", "cql_sac_agent.CqlSacAgent", "cql_sac.gin"
)
FBRC = Agent("from fbrc_agent import fbrc_agent", "fbrc_agent.FbrcAgent", "fbrc.gin")
AGENTS = {"SacAgent": SAC, "CqlSacAgent": CQL_SAC, "FbrcAgent": FBRC}
SCRIPTS = {"sac_train_eval.py": SAC, "cql_sac_train_eval.py": CQL_SAC}

SMALL = [
    f"train_eval.num_iterations = {NUM_STEPS}",
    "train_eval.batch_size = 16",
    "train_eval.actor_fc_layers = (16,)",
    "train_eval.critic_joint_fc_layers = (16,)",
    "train_eval.policy_save_interval = 10",
    "train_eval.eval_interval = 10",
    "train_eval.eval_episodes = 1",
    "Learner.checkpoint_interval = 10",
    "Learner.summary_interval = 5",
]
SMALL_OF_SCRIPT = {
    "sac_train_eval.py": [],
    "cql_sac_train_eval.py": ["train_eval.learner_iterations_per_call = 5"],
}


def swap(script, agent):
    """Returns a script's text with another agent in the two lines that name the agent."""
    text = (EXAMPLES / script).read_text()
    own = SCRIPTS[script]
    assert text.count(f"{own.import_line}\n") == 1
    assert text.count(f"{own.constructor}(") == 1
    text = text.replace(f"{own.import_line}\n", f"{agent.import_line}\n")
    return text.replace(f"{own.constructor}(", f"{agent.constructor}(")


@contextlib.contextmanager
def command_line(arguments):
    """As a new process would have it: these arguments and nothing configured."""
    verbosity = logging.get_verbosity()
    gin.clear_config()
    with pytest.MonkeyPatch.context() as patch, gin.config.interactive_mode():
        patch.setattr(sys, "argv", [str(argument) for argument in arguments])
        yield
    gin.clear_config()
    logging.set_verbosity(verbosity)


def read_summaries(directory):
    """Returns {tag: [(step, value), ...]} of the scalars in a directory's event files."""
    scalars = {}
    for path in pathlib.Path(directory).glob("events.out.tfevents.*"):
        for record in tf.data.TFRecordDataset(str(path)).as_numpy_iterator():
            event = tf.compat.v1.Event.FromString(record)
            for value in event.summary.value:
                item = (event.step, float(tf.make_ndarray(value.tensor)))
                scalars.setdefault(value.tag, []).append(item)
    return scalars


@pytest.fixture(
    scope="module",
    params=[(script, agent) for script in SCRIPTS for agent in AGENTS],
    ids=lambda pair: f"{pair[0]}-{pair[1]}",
)
def run(request, tmp_path_factory, tiny_run):
    """The directory of a short run of a swapped script; and which it is."""
    script, name = request.param
    directory = tmp_path_factory.mktemp(name)
    swapped = directory / script
    swapped.write_text(swap(script, AGENTS[name]))
    bindings = SMALL + SMALL_OF_SCRIPT[script]
    if name == "FbrcAgent":
        bindings = [*bindings, f"BEHAVIOR_DIR = '{tiny_run}/behavior'"]
    gin_file = EXAMPLES / "gin" / AGENTS[name].gin_file
    flags = ["--root_dir", directory, "--gin_file", gin_file, "--gin_bindings", *bindings]
    with command_line([swapped, *flags]):
        runpy.run_path(str(swapped), run_name="__main__")
    return directory, name


def test_pipeline_trains_checkpoints_evaluates_and_saves_a_policy(run, tiny_run):
    directory, name = run
    checkpoint = tf.train.load_checkpoint(str(directory / "train" / "checkpoints"))
    assert checkpoint.get_tensor("train_step/.ATTRIBUTES/VARIABLE_VALUE") == NUM_STEPS

    losses = read_summaries(directory / "train")
    own = {"CqlSacAgent": ["cql_loss"], "FbrcAgent": ["gradient_penalty"]}.get(name, [])
    for loss in ["critic_loss", "actor_loss", "alpha_loss", *own]:
        steps, values = zip(*losses[f"Losses/{loss}"])
        assert steps == (0, 5)
        assert np.isfinite(values).all()
    returns = read_summaries(directory / "eval")["Metrics/AverageReturn"]
    assert [step for step, _ in returns] == [NUM_STEPS]
    assert -2000 < returns[0][1] < 0  # Pendulum: 200 steps of -16.3 to 0.

    saved = directory / "policies"
    policy = policy_loader.load(
        str(saved / "greedy_policy"),
        str(saved / "checkpoints" / f"policy_checkpoint_{NUM_STEPS:010d}"),
    )
    assert policy.get_train_step() == NUM_STEPS
    observations = np.float32([[1.0, 0.0, 0.0], [0.0, 1.0, 8.0]])
    actions = [policy.action(ts.restart(observation)).action for observation in observations]
    assert np.shape(actions) == (2, 1)
    assert (np.abs(actions) <= 2).all() and actions[0] != actions[1]

    if name == "FbrcAgent":
        mu = behavior.load_behavior_network(f"{tiny_run}/behavior")
        stored = [
            checkpoint.get_tensor(key)
            for key in checkpoint.get_variable_to_shape_map()
            if key.startswith("agent/_behavior_network/") and "OPTIMIZER_SLOT" not in key
        ]
        assert sorted(a.tobytes() for a in stored) == sorted(
            v.numpy().tobytes() for v in mu.variables
        )


def readme_blocks(language):
    return re.findall(rf"```{language}\n(.*?)```", (EXAMPLES / "README.md").read_text(), re.DOTALL)


@pytest.mark.parametrize("script, block", zip(SCRIPTS, readme_blocks("diff")))
def test_readme_shows_the_whole_difference(script, block):
    before, after = (EXAMPLES / script).read_text(), swap(script, FBRC)
    difference = difflib.unified_diff(before.splitlines(), after.splitlines(), n=0, lineterm="")
    assert [d for d in list(difference)[2:] if not d.startswith("@@")] == block.splitlines()
    assert len(block.splitlines()) == 4


def test_readmes_sed_makes_the_swapped_script(tmp_path):
    (command,) = [line for line in "".join(readme_blocks("")).splitlines() if "sed" in line]
    command, output = command.split(" > ")
    result = subprocess.run(
        command,
        shell=True,
        cwd=tiny_runs.ROOT,
        env=tiny_runs.fresh_environment(),
        capture_output=True,
        text=True,
    )
    assert result.stdout == swap("sac_train_eval.py", FBRC)
    assert any(f"python {output} " in block for block in readme_blocks(""))


def test_readmes_files_exist():
    names = re.findall(r"\bexamples/\S+\.(?:py|gin)\b", "".join(readme_blocks("")))
    assert {tiny_runs.ROOT / name for name in names} == {
        *(EXAMPLES / script for script in SCRIPTS),
        *(EXAMPLES / "gin" / agent.gin_file for agent in AGENTS.values()),
    }
