import json
import subprocess
import sys

import numpy as np
import pytest

from fbrc_agent.environments import gymnasium_environment, tasks
from fbrc_agent.utils.errors import InputError
from tests.helpers import d4rl_table


def test_locomotion_task_has_d4rl_file_scores_and_gymnasium_environment():
    task = tasks.get_task("hopper-medium-v2")
    assert task.id == "hopper-medium-v2"
    assert task.environment == "Hopper-v4"
    assert task.data_url == (
        "http://rail.eecs.berkeley.edu/datasets/offline_rl/gym_mujoco_v2/hopper_medium-v2.hdf5"
    )
    # Fu et al. 2020, table of reference scores.
    assert task.reference_scores == (-20.272305, 3234.3)


@pytest.mark.parametrize(
    "task_id, environment",
    [
        ("halfcheetah-medium-expert-v0", "HalfCheetah-v4"),
        ("walker2d-full-replay-v2", "Walker2d-v4"),
        ("hopper-random-v1", "Hopper-v4"),
        ("ant-medium-v2", None),
        ("antmaze-umaze-v2", None),
        ("bullet-hopper-medium-v0", None),
        ("pen-human-v1", None),
    ],
)
def test_only_locomotion_tasks_have_an_environment(task_id, environment):
    task = tasks.get_task(task_id)
    assert task.environment == environment
    assert task.data_url.endswith(".hdf5")


@pytest.mark.parametrize(
    "environment, reference_scores",
    [
        ("Hopper-v4", (-20.272305, 3234.3)),
        ("HalfCheetah-v4", (-280.178953, 12135.0)),
        ("Walker2d-v4", (1.629008, 4592.3)),
    ],
)
def test_gymnasium_id_has_the_scores_of_its_robot_and_no_file(environment, reference_scores):
    task = tasks.get_task(environment)
    assert task == tasks.Task(environment, environment, None, reference_scores)


@pytest.mark.parametrize("environment", ["Hopper-v5", "HalfCheetah-v5", "Walker2d-v5"])
def test_v5_is_a_task_without_scores(environment):
    assert tasks.get_task(environment) == tasks.Task(environment, environment, None, None)


def test_pendulum_has_its_own_scores():
    random_score, expert_score = tasks.get_task("Pendulum-v1").reference_scores
    assert random_score < expert_score < 0


@pytest.mark.parametrize("task_id", ["MyRobot-v0", "my_module:MyRobot-v0", "hoper-medium-v2"])
def test_any_other_id_is_gymnasiums(task_id):
    assert tasks.get_task(task_id) == tasks.Task(task_id, task_id, None, None)
    assert tasks.find_task(task_id) is None


def test_no_task_has_nothing_to_evaluate_in():
    assert tasks.get_task(None) == tasks.Task(None, None, None, None)


def test_references_of_ones_own_are_used():
    task = tasks.get_task("MyRobot-v0", reference_scores=(-10, 30.0))
    assert task.normalized_score(10.0) == 50.0
    assert tasks.get_task("Hopper-v4", (0, 1)).reference_scores == (0.0, 1.0)


@pytest.mark.parametrize("references", [(1.0, 1.0), (2, 1), (1,), "ab", 3, (0.0, float("nan"))])
def test_bad_references_are_refused(references):
    with pytest.raises(InputError, match="reference_scores is .*two numbers, the first one sm"):
        tasks.get_task("Hopper-v4", references)


@pytest.mark.parametrize("task_id", ["", 3, ["Hopper-v4"]])
def test_task_that_is_no_id_is_refused(task_id):
    with pytest.raises(InputError, match="The task is .*; it must be an id such as 'Hopper-v4'"):
        tasks.get_task(task_id)


@pytest.mark.parametrize(
    "task_id, suggestion",
    [
        ("hoper-medium-v2", "hopper-medium-v2"),
        ("hopper-v4", "Hopper-v4"),
        ("zzz", "Pendulum-v1"),
    ],
)
def test_environment_that_cannot_be_made_is_named_with_a_suggestion(task_id, suggestion):
    with pytest.raises(InputError, match=f"'{task_id}'.*TASK=None.*{suggestion}"):
        gymnasium_environment.make(task_id)


def test_table_is_that_of_the_installed_d4rl():
    infos = d4rl_table.find_infos()
    if infos is None:
        pytest.skip("d4rl is not installed")
    with open(tasks.D4RL_TABLE, encoding="utf-8") as file:
        table = json.load(file)
    assert table == d4rl_table.make(infos)
    scores = [entry["reference_scores"] for entry in table["tasks"].values()]
    assert (len(scores), len(scores) - scores.count(None)) == (155, 147)


def test_table_carries_the_notice_of_its_license():
    with open(tasks.D4RL_TABLE, encoding="utf-8") as file:
        assert "Apache License, Version 2.0" in json.load(file)["notice"]


def test_tasks_and_scores_need_neither_d4rl_nor_a_simulator():
    code = (
        "import sys; sys.modules['d4rl'] = None; from fbrc_agent.environments import tasks;"
        "tasks.get_task('hopper-medium-v2').normalized_score(0);"
        "print([name for name in ('gym', 'gymnasium', 'mujoco_py', 'tensorflow')"
        " if name in sys.modules])"
    )
    output = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)
    assert output.stdout.decode().strip() == "[]"


def test_normalized_score_is_0_at_random_and_100_at_expert():
    task = tasks.Task("task", None, None, (-20.0, 180.0))
    np.testing.assert_allclose(
        task.normalized_score([[-20.0, 180.0], [80.0, 280.0]]), [[0.0, 100.0], [50.0, 150.0]]
    )
    assert task.normalized_score(80) == 50.0


def test_normalized_score_without_references_is_an_input_error():
    with pytest.raises(InputError, match="maze2d-eval-umaze-v1"):
        tasks.get_task("maze2d-eval-umaze-v1").normalized_score(1.0)
