"""The benchmark: its count of operations, its rows, and what it writes and refuses."""

import json
import math
import os
import pathlib

import gin
import numpy as np
import pytest
import tensorflow as tf

from fbrc_agent.agents import behavior
from fbrc_agent.datasets import batches
from fbrc_agent.experiments import benchmark, benchmark_training
from fbrc_agent.networks import behavior_network
from fbrc_agent.training import configuration
from tests.helpers import tiny_runs


def refusal(capsys, *arguments):
    """Runs a benchmark that must be refused; returns its sentence."""
    assert tiny_runs.run_command("benchmark", *arguments) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.count("\n") == 1, captured.err
    return captured.err.strip()


def test_operations_are_those_of_the_products_in_the_graph():
    left, right = tf.zeros([2, 3]), tf.zeros([4, 3])
    inner = tf.function(lambda: tf.matmul(left, right, transpose_b=True))  # 2 x 4 sums of 3.

    def outer(x):  # 5 x 4 sums of 2.
        return tf.matmul(x, inner(), transpose_a=True)

    flops = benchmark_training.product_flops(outer, tf.zeros([2, 5]))
    assert flops == 2 * (2 * 4 * 3 + 5 * 4 * 2)


def test_operations_of_an_update():
    """A batch of 8, two observations, one action, layers of three and four units.

    Layers of the offset: 3x3, 3x4, 4x1 = 9 + 12 + 4, the action's part of the first 1x3 = 3; of
    the actor: 2x3, 3x4, 4x2 = 6 + 12 + 8; of mu, two components: 2x5, 5x6 = 10 + 30.
    """
    critic_loss = 26 + 2 * 40 + 2 * 25 + 2 * (25 + 25 + 16)
    forward, gradient, chain, kernels = 9 + 12, 12 + 3, 3, 12 + 3
    penalty = 26 + 2 * (forward + gradient + chain + kernels)
    # The gradient in the inputs has the observation's part too, which nothing needs.
    actor_loss = 2 * (25 + 16 + 9) + 26 + 20
    configuration.parse(
        ["fbrc.gin"],
        [
            "create_offset_network.fc_layer_params = (3, 4)",
            "create_actor_network.fc_layer_params = (3, 4)",
            "MixtureBehaviorNetwork.fc_layer_params = (5,)",
            "MixtureBehaviorNetwork.num_components = 2",
        ],
    )
    sizes = benchmark_training.Sizes(observation_size=2, action_size=1)
    data = benchmark_training.synthetic_data(sizes, rows=8)
    batch = next(iter(batches.make_tf_dataset(data, 8, seed=0)))[0]
    agent = benchmark_training.make_agent("fbrc", data)
    agent.initialize()
    flops = benchmark_training.product_flops(agent.train, batch)
    gin.clear_config()
    assert flops == 8 * 2 * (critic_loss + penalty + actor_loss)


def make_behavior_agent(data):
    tf.keras.utils.set_random_seed(0)
    mu = behavior_network.MixtureBehaviorNetwork(
        data.time_step_spec.observation, data.action_spec, fc_layer_params=(4,)
    )
    return behavior.BehaviorAgent(
        data.time_step_spec,
        data.action_spec,
        behavior_network=mu,
        optimizer=tf.keras.optimizers.legacy.Adam(1e-2),
        train_step_counter=tf.Variable(0, dtype=tf.int64),
        seed=0,
    )


def test_a_call_makes_as_many_updates_as_it_counts():
    sizes = benchmark_training.Sizes(observation_size=3, action_size=1)
    data = benchmark_training.synthetic_data(sizes, rows=32)
    batch = next(iter(batches.make_tf_dataset(data, 32, seed=0)))[0]
    looped, called = make_behavior_agent(data), make_behavior_agent(data)
    before = [variable.numpy() for variable in called.behavior_network.variables]
    benchmark_training.updates_in_one_call(looped, 3)(batch)
    for _ in range(3):
        called.train(batch)
    assert looped.train_step_counter.numpy() == called.train_step_counter.numpy() == 3
    for old, one, other in zip(
        before, looped.behavior_network.variables, called.behavior_network.variables
    ):
        assert not np.allclose(old, other, atol=1e-3)
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-6)


def test_rates_count_updates_not_calls(monkeypatch):
    counters, names = [], []

    def make_agent(name, data):
        names.append(name)
        agent = make_behavior_agent(data)
        counters.append(agent.train_step_counter)
        return agent

    def one_call_a_second(function, seconds):
        function()
        return 1.0

    monkeypatch.setattr(benchmark_training, "make_agent", make_agent)
    monkeypatch.setattr(benchmark_training, "rate", one_call_a_second)
    sizes = benchmark_training.Sizes(
        observation_size=3, action_size=1, batch_size=32, updates_per_call=5
    )
    contenders = benchmark_training.make_updates(sizes, "", ["behavior"])
    assert names == ["behavior"]
    (counter,) = counters
    before = int(counter)
    assert contenders["behavior"]() == 5.0
    assert int(counter) - before == 5


def test_rounds_alternate():
    calls = []

    def contender(name):
        return lambda: calls.append(name) or len(calls)

    numbers = benchmark.measure("group", {name: contender(name) for name in "ab"}, rounds=2)
    assert calls == ["a", "b", "b", "a"]
    assert numbers == {"a": [1, 4], "b": [2, 3]}


@pytest.mark.parametrize(
    "rate, met", [(1.0, "yes"), (0.99, "minimum"), (0.85, "minimum"), (0.84, "no")]
)
def test_a_goal_with_a_minimum(rate, met):
    row = benchmark.select_rows(["fbrc_to_sac"])[0]
    rounds = {"fbrc": [rate], "sac": [1.0]}
    assert benchmark.row_result(row, rounds)["met"] == met


@pytest.mark.parametrize("seconds, met", [(1.3, "yes"), (1.31, "no")])
def test_a_goal_that_is_an_upper_bound(seconds, met):
    row = benchmark.select_rows(["loading"])[0]
    rounds = {"load": [seconds], "h5py": [1.0]}
    assert benchmark.row_result(row, rounds)["met"] == met


def test_a_ratio_is_the_median_of_the_rounds_ratios():
    row = benchmark.select_rows(["fbrc_to_sac"])[0]
    rounds = {"fbrc": [1.0, 20.0, 30.0], "sac": [1.0, 10.0, 10.0]}
    result = benchmark.row_result(row, rounds)
    assert (result["median"], result["quartiles"]) == (2.0, [1.5, 2.5])


def test_peak_memory_sees_what_was_freed():
    before = benchmark_training.peak_bytes()
    resident = pathlib.Path("/proc/self/statm").read_text().split()[1]
    missing = before - int(resident) * os.sysconf("SC_PAGE_SIZE")
    block = b"1" * (missing + 50_000_000)
    del block
    assert benchmark_training.peak_bytes() > before + 25_000_000


def test_a_quick_run(tmp_path, capsys):
    output = tmp_path / "result.json"
    names = ["behavior_to_fbrc", "evaluation", "loading"]
    arguments = ["--quick", "--rounds", 2, "--only", *names, "--output", output]
    assert tiny_runs.run_command("benchmark", *arguments) == 0
    result = json.loads(output.read_text())
    rows = result["rows"]
    assert [row["name"] for row in rows] == names
    numbers = [number for row in rows for number in (row["median"], *row["quartiles"])]
    assert all(math.isfinite(number) and number > 0 for number in numbers)
    assert {len(v) for group in result["rounds"].values() for v in group.values()} == {2}
    assert list(tmp_path.iterdir()) == [output]
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["what", "measured", "goal", "met"]
    assert [line.split(":")[0] for line in lines[1:4]] == names
    assert f"tensorflow {result['versions']['tensorflow']}" in "\n".join(lines)


@pytest.mark.slow
def test_a_quick_run_measures_every_row(tmp_path):
    output = tmp_path / "result.json"
    assert tiny_runs.run_command("benchmark", "--quick", "--rounds", 1, "--output", output) == 0
    values = {row["name"]: row["median"] for row in json.loads(output.read_text())["rows"]}
    assert list(values) == [row.name for row in benchmark.ROWS]
    assert all(math.isfinite(value) and value > 0 for value in values.values())


@pytest.mark.parametrize(
    "arguments, message",
    [
        (
            ["--only", "loading", "fbrc_to_dqn"],
            "--only fbrc_to_dqn: there is no such row; the rows",
        ),
        (["--rounds", "0"], "--rounds is 0; it must be an integer of 1 or more."),
    ],
)
def test_wrong_flags(tmp_path, monkeypatch, capsys, arguments, message):
    monkeypatch.chdir(tmp_path)
    assert refusal(capsys, *arguments).startswith(f"benchmark: {message}")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("path", ["", "none/result.json"])
def test_output_that_cannot_be_a_file(tmp_path, capsys, path):
    error = refusal(capsys, "--output", tmp_path / path)
    assert error.endswith(
        ": cannot be written; it must be the name of a file in a directory that is "
        "there and can be written."
    )
