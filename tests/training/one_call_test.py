"""`fbrc_agent.train` and runs without a task, or with an environment of one's own."""

import subprocess
import sys

import numpy as np
import pytest

import fbrc_agent
from fbrc_agent.utils import json_files
from fbrc_agent.utils.errors import InputError
from tests.helpers import tiny_runs

SMALL = [
    *tiny_runs.NETWORKS,
    "BATCH_SIZE = 32",
    "EVAL_INTERVAL = 10",
    "NUM_EVAL_EPISODES = 2",
    "train.log_interval = 10",
    "train.checkpoint_interval = 10",
]

# A module of a user's own, whose environment has two observations and one action.
ROBOT = """
import gymnasium, numpy as np

class Robot(gymnasium.Env):
    observation_space = gymnasium.spaces.Box(-10.0, 10.0, (2,), np.float32)
    action_space = gymnasium.spaces.Box(-1.0, 1.0, (1,), np.float32)

    def reset(self, seed=None, options=None):
        super().reset(seed=seed)
        self._x = self.np_random.uniform(-1, 1, 2).astype(np.float32)
        return self._x, {}

    def step(self, action):
        self._x = self._x + np.float32(0.1) * np.float32([action[0], 0])
        return self._x, float(-abs(self._x[0])), False, False, {}

gymnasium.register("MyRobot-v0", Robot, max_episode_steps=5)
"""


def make_data(size=200):
    generator = np.random.default_rng(0)
    observations = generator.normal(size=(size, 2))
    actions = generator.uniform(-1, 1, (size, 1))
    following = observations + 0.1 * np.concatenate([actions, np.zeros_like(actions)], 1)
    return fbrc_agent.OfflineData.from_arrays(
        observations, actions, -np.abs(following[:, 0]), following, np.ones(size), source="my log"
    )


@pytest.fixture(scope="module")
def without_task(tmp_path_factory):
    root_dir = tmp_path_factory.mktemp("run") / "arrays"
    data = make_data()
    return fbrc_agent.train(data, str(root_dir), steps=20, seed=3, bindings=SMALL), root_dir


def test_arrays_train_without_a_task(without_task):
    (result, policy), root_dir = without_task
    assert (result["task"], result["seed"]) == (None, 3)
    assert {name: stage["steps"] for name, stage in result["stages"].items()} == {
        "behavior": 20,
        "fbrc": 20,
    }
    assert result["stages"]["fbrc"]["return_mean"] is None
    actions = policy(np.zeros([4, 2], np.float32))
    assert actions.shape == (4, 1) and np.abs(actions).max() <= 1.0
    assert not (root_dir / "policies" / "best").exists()


def test_nothing_speaks_of_a_task_that_there_is_not(without_task, capsys):
    (result, _), root_dir = without_task
    card = (root_dir / "policies/greedy/20/README.md").read_text()
    assert "A greedy policy, trained offline by F-BRC: 20 updates of behavior" in card
    assert "Data: my log, 200 transitions" in card
    assert json_files.read_json(str(root_dir / "policies/greedy/20/policy.json"))["task"] is None
    from fbrc_agent.training import report

    table = report.table(result)
    assert table.startswith("my log: 200 transitions")
    assert "None" not in table + card and "normalized" not in table.splitlines()[1]
    assert tiny_runs.run_command("evaluate", "--policy", result["policy"]) == 2
    assert (
        "card names no task: there is no environment to evaluate it in" in capsys.readouterr().err
    )


def test_a_run_is_continued_by_the_same_call(without_task):
    (result, _), root_dir = without_task
    again, _ = fbrc_agent.train(make_data(), str(root_dir), steps=20, seed=3, bindings=SMALL)
    assert again == result
    with pytest.raises(InputError, match="holds a run with seed = 3, not 4"):
        fbrc_agent.train(make_data(), str(root_dir), steps=20, seed=4, bindings=SMALL)


@pytest.mark.slow
def test_an_environment_of_ones_own_is_evaluated_in(tmp_path):
    """In a process of its own, by flags: module, raw returns, references that are bound."""
    (tmp_path / "robots.py").write_text(ROBOT)
    data = make_data()
    columns = (data.observations, data.actions, data.rewards)
    ends = np.zeros(len(data.rewards), bool)
    fbrc_agent.save_d4rl_hdf5(str(tmp_path / "mine.hdf5"), *columns, ends, ends, {})
    flags = ["--algorithm", "fbrc", "--task", "robots:MyRobot-v0", "--data", "mine.hdf5"]
    flags += ["--steps", "20", "--seed", "1", "--root_dir", "run", "--gin_bindings", *SMALL]
    references = "train.reference_scores = (-10.0, 0.0)"
    for command in (
        ["train", *flags, references],
        ["evaluate", "--policy", "run/policies/greedy", "--episodes", "2", *flags[2:4]],
    ):
        done = subprocess.run(
            [sys.executable, "-W", "ignore", "-m", "fbrc_agent.cli", *command],
            cwd=tmp_path,
            env=tiny_runs.environment(),
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr[-3000:]
        assert "normalized" in done.stdout
    result = json_files.read_json(str(tmp_path / "run" / "result.json"))
    assert result["task"] == "robots:MyRobot-v0" and result["reference_scores"] == [-10.0, 0.0]
    stage = result["stages"]["fbrc"]
    assert stage["normalized_score"] == pytest.approx(10.0 * (stage["return_mean"] + 10.0))


def test_neither_task_nor_data_is_refused(tmp_path, capsys):
    arguments = ("--gin_file", "fbrc.gin", "--root_dir", tmp_path / "run")
    assert tiny_runs.run_command("train", *arguments) == 2
    assert "train.data is None and train.task is None; give the data" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_an_environment_that_there_is_not_is_refused(tmp_path, pendulum_data, capsys):
    assert tiny_runs.train(tmp_path / "run", pendulum_data, TASK="MyRobot-v9") == 2
    assert "cannot make the environment 'MyRobot-v9'" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()
