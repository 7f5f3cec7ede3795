"""The tables that commands print."""

import json

import numpy as np

from fbrc_agent.environments.tasks import Task
from fbrc_agent.evaluation import rollouts
from fbrc_agent.training import report


def stage(label, steps=10, speed=123.45, mean=-400.0, deviation=30.0, score=50.0):
    return {
        "label": label,
        "steps": steps,
        "updates_per_second": speed,
        "return_mean": mean,
        "return_std": deviation,
        "returns": None if mean is None else [mean],
        "normalized_score": score,
    }


def result(task="Hopper-v4", **stages):
    data = {
        "source": "file.hdf5",
        "transitions": 1990,
        "episodes": 10,
        # 12.5 % of the way from D4RL's random score to its expert score.
        "return_mean": -20.272305 + 0.125 * (3234.3 + 20.272305),
        "return_std": 25.0,
    }
    return {
        "task": task,
        "seed": 3,
        "data": data,
        "stages": {"behavior": stage("behavior policy"), "fbrc": stage("F-BRC"), **stages},
        "policy": "runs/x/policies/greedy/100",
        "best_policy": "runs/x/policies/best/80",
    }


def test_table_has_a_row_for_data_behavior_and_agent():
    lines = report.table(result(fbrc=stage("F-BRC", mean=3000.0, deviation=1.5, score=92.8))).split(
        "\n"
    )
    assert lines[0] == "Hopper-v4, file.hdf5: 1990 transitions, 10 episodes, seed 3"
    assert lines[2].split() == ["data", "386.5", "(25.0)", "12.5", "-"]
    assert lines[3].split() == ["behavior", "policy", "-400.0", "(30.0)", "50.0", "123.5"]
    assert lines[4].split() == ["F-BRC", "3000.0", "(1.5)", "92.8", "123.5"]
    assert lines[5:] == [
        "policy: runs/x/policies/greedy/100",
        "best:   runs/x/policies/best/80",
    ]


def test_table_without_evaluation_shows_dashes():
    nothing = stage("F-BRC", speed=None, mean=None, deviation=None, score=None)
    lines = report.table(result(fbrc=nothing)).split("\n")
    assert lines[4].split() == ["F-BRC", "-", "-", "-"]


def test_table_without_complete_episodes_shows_dashes():
    content = result()
    content["data"].update(return_mean=None, return_std=None)
    assert report.table(content).split("\n")[2].split() == ["data", "-", "-", "-"]


def test_table_shows_a_return_that_is_not_finite():
    content = json.loads(
        json.dumps(result(fbrc=stage("F-BRC", mean="nan", deviation="nan", score="nan")))
    )
    assert report.table(content).split("\n")[4].split() == ["F-BRC", "nan", "(nan)", "nan", "123.5"]


def test_evaluation_table_has_a_row_for_each_episode_and_the_mean():
    episodes = rollouts.EvaluationResult(np.array([10.0, 30.0]), np.array([4, 8]))
    task = Task("x", "Hopper-v4", None, reference_scores=(0.0, 200.0))
    rows = [line.split() for line in report.evaluation_table(task, episodes).split("\n")]
    assert rows == [
        ["episode", "steps", "return", "normalized"],
        ["0", "4", "10.0", "5.0"],
        ["1", "8", "30.0", "15.0"],
        ["mean", "6", "20.0", "10.0"],
    ]


def test_evaluation_table_without_reference_scores_has_no_normalized_ones():
    episodes = rollouts.EvaluationResult(np.array([10.0]), np.array([5]))
    task = Task("x", "Hopper-v4", None, reference_scores=None)
    lines = report.evaluation_table(task, episodes).split("\n")
    assert lines[1].split() == ["0", "5", "10.0"]


def test_table_says_why_a_task_is_not_evaluated():
    nothing = stage("F-BRC", mean=None, deviation=None, score=None)
    text = report.table(result("maze2d-umaze-v1", fbrc=nothing))
    assert "not evaluated: no environment here is known to be that of maze2d-umaze-v1" in text


def test_table_without_references_has_no_normalized_scores():
    text = report.table(result("my_module:MyRobot-v0", fbrc=stage("F-BRC", score=None)))
    assert "normalized" not in text and "not evaluated" not in text
    assert text.split("\n")[4].split() == ["F-BRC", "-400.0", "(30.0)", "123.5"]


def test_table_warns_of_a_policy_that_cannot_be_trusted_and_shows_the_average():
    doubts = [{"reason": "value", "value": 1248.0, "bound": 962.0}]
    scores = {
        "average_return_mean": 1.0,
        "average_return_std": 2.0,
        "average_normalized_score": 3.0,
    }
    text = report.table(result(fbrc={**stage("F-BRC"), "doubts": doubts, **scores}))
    assert ["F-BRC,", "average", "1.0", "(2.0)", "3.0", "-"] in [
        s.split() for s in text.split("\n")
    ]
    assert (
        "warning: the policy cannot be trusted: its values where episodes begin (1248) are beyond "
        "the largest return that the data supports (962)." in text
    )
