"""bin/benchmark --serving: its rows, and that its contenders do the same."""

import json
import math

import gin
import numpy as np
import pytest
import tensorflow as tf
from tf_agents.trajectories import time_step as ts

from fbrc_agent.experiments import benchmark, benchmark_serving, benchmark_training
from tests.helpers import tiny_runs


@pytest.fixture
def small_actor():
    with gin.config.interactive_mode():
        gin.parse_config("create_actor_network.fc_layer_params = (8,)")
    yield
    gin.clear_config()


def test_a_quick_run_measures_every_row_of_serving(tmp_path, capsys):
    output = tmp_path / "result.json"
    arguments = ["--serving", "--quick", "--rounds", 2, "--output", output]
    assert tiny_runs.run_command("benchmark", *arguments) == 0
    result = json.loads(output.read_text())
    values = {row["name"]: row["median"] for row in result["rows"]}
    assert list(values) == [r.name for r in benchmark.ROWS if r.name.startswith("serving")]
    assert all(math.isfinite(value) and value > 0 for value in values.values())
    goals = {row["name"]: row["goal"] for row in result["rows"] if row["goal"] is not None}
    assert goals == {"serving_1": 0.5, "serving_session_1": 0.5}
    rounds = result["rounds"]["serving"]
    assert values["serving_us_32"] == pytest.approx(np.median(rounds["export_32"]))
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(":")[0] for line in lines[1 : 1 + len(values)]] == list(values)


def test_serving_comes_beside_named_rows():
    names = [row.name for row in benchmark.select_rows(["loading"], serving=True)]
    assert names[0] == "loading"
    assert names[1:] == [row.name for row in benchmark.select_rows(None, serving=True)]


def test_what_is_compared_gives_the_same_actions(tmp_path, small_actor):
    policy = benchmark_training.make_policy(benchmark_training.Sizes())
    time_step = ts.restart(tf.random.stateless_normal([32, 17], (0, 0)), 32)
    calls = benchmark_serving.make_calls(policy, str(tmp_path))
    actions = {name: act(time_step) for name, act in calls.items()}
    for name in ("export", "saver"):
        actions[name] = actions[name]["action"]
    for name in ("eager", "function"):
        actions[name] = actions[name].action
    assert np.ptp(actions["eager"]) > 0
    for name, action in actions.items():
        np.testing.assert_allclose(action, actions["eager"], rtol=0, atol=1e-6, err_msg=name)
