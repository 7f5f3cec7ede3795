"""Strategies: several replicas train to what one replica with the same global batch trains to.

The number of CPUs is fixed when TensorFlow starts, so strategies run in processes of their own.
"""

import contextlib
import json
import os
import socket
import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf

from fbrc_agent.training import strategy as strategies
from fbrc_agent.utils.errors import InputError
from tests.helpers import strategy_worker, tiny_runs

STRATEGIES = ["mirrored", "multi_worker"]
# Seconds; the processes need 20 each where they have a core of their own.
TIME_LIMIT = 600


def free_ports(count):
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]


def cluster_environments(count):
    """Returns the environment of each worker of a cluster on this machine."""
    workers = [f"127.0.0.1:{port}" for port in free_ports(count)]
    return [
        {
            "TF_CONFIG": json.dumps(
                {"cluster": {"worker": workers}, "task": {"type": "worker", "index": index}}
            )
        }
        for index in range(count)
    ]


def start(arguments, environment, log):
    return subprocess.Popen(
        [sys.executable, "-m", *map(str, arguments)],
        cwd=tiny_runs.ROOT,
        env={**os.environ, "CUDA_VISIBLE_DEVICES": "-1", **environment},
        stdout=log,
        stderr=subprocess.STDOUT,
    )


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    """What one replica and both strategies have trained to, by name; all run at the same time."""
    directory = tmp_path_factory.mktemp("strategies")
    environments = {"mirrored": {}}
    for index, environment in enumerate(cluster_environments(2)):
        environments[f"multi_worker{index}"] = environment
    processes = {}
    try:
        for name, environment in environments.items():
            kind = name.rstrip("01")
            arguments = ["tests.helpers.strategy_worker", kind, directory / f"{name}.npz"]
            with open(directory / f"{name}.log", "w") as log:
                processes[name] = start(arguments, environment, log)
        trained = {"none": strategy_worker.train(tf.distribute.get_strategy())}
        for name, process in processes.items():
            code = process.wait(timeout=TIME_LIMIT)
            assert code == 0, (directory / f"{name}.log").read_text()[-3000:]
            trained[name] = dict(np.load(directory / f"{name}.npz"))
    finally:
        for process in processes.values():
            process.kill()
            process.wait()
    trained["multi_worker"] = trained["multi_worker0"]
    return trained


def entries(result, prefix):
    found = {name: value for name, value in result.items() if name.startswith(prefix)}
    assert found
    return found


def assert_close(actual, expected, prefix):
    actual, expected = entries(actual, prefix), entries(expected, prefix)
    assert set(actual) == set(expected)
    for name, value in actual.items():
        # Weights of about 1 are sums of float32; 1e-7 is the spacing of such numbers.
        np.testing.assert_allclose(value, expected[name], rtol=1e-5, atol=1e-7, err_msg=name)


@pytest.mark.parametrize("strategy, replicas", [("none", 1), ("mirrored", 2), ("multi_worker", 2)])
def test_strategy_has_its_replicas(results, strategy, replicas):
    assert results[strategy]["replicas"] == replicas


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("agent", ["behavior", "fbrc"])
def test_weights_are_those_of_one_replica(results, strategy, agent):
    assert_close(results[strategy], results["none"], f"{agent}/variables/")


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("agent", ["behavior", "fbrc"])
def test_losses_and_extra_are_those_of_one_replica(results, strategy, agent):
    assert_close(results[strategy], results["none"], f"{agent}/losses/")


def test_workers_have_the_same_weights(results):
    first, second = results["multi_worker0"], results["multi_worker1"]
    for name, value in first.items():
        np.testing.assert_array_equal(second[name], value, err_msg=name)


def test_comparison_sees_a_penalty_that_is_not_divided_by_the_replicas(results):
    """Two replicas that both add all of the penalty train with twice its weight."""
    weight = 2 * strategy_worker.PENALTY_WEIGHT
    doubled = strategy_worker.train(tf.distribute.get_strategy(), weight)
    for prefix in ("fbrc/variables/", "fbrc/losses/"):
        with pytest.raises(AssertionError, match="Not equal to tolerance"):
            assert_close(doubled, results["none"], prefix)


# The driver.


def start_train(directory, data, name, environment, flags, bindings=(), **sizes):
    """Starts `train` for directory/run; its temporary files go to a directory of its own."""
    temporary = directory / f"{name}_tmp"
    temporary.mkdir()
    arguments = tiny_runs.train_arguments(directory / "run", data, bindings=bindings, **sizes)
    with open(directory / f"{name}.log", "w") as log:
        return start(
            ["fbrc_agent.cli", *arguments, *flags],
            {"TMPDIR": str(temporary), "TF_CPP_MIN_LOG_LEVEL": "3", **environment},
            log,
        )


def wait(directory, processes):
    """Waits for processes by name; returns what each printed last, its table."""
    try:
        for name, process in processes.items():
            code = process.wait(timeout=TIME_LIMIT)
            assert code == 0, (directory / f"{name}.log").read_text()[-3000:]
    finally:
        for process in processes.values():
            process.kill()
            process.wait()
    return [(directory / f"{name}.log").read_text().splitlines()[-5:] for name in processes]


def run_of_two_workers(directory, data, **sizes):
    environments = cluster_environments(2)
    processes = {}
    for index, environment in enumerate(environments):
        name = f"worker{index}"
        flags = ["--strategy", "multi_worker"]
        processes[name] = start_train(directory, data, name, environment, flags, **sizes)
    return wait(directory, processes)


def test_only_the_chief_of_two_workers_writes(tmp_path, pendulum_data):
    tables = run_of_two_workers(tmp_path, pendulum_data, BEHAVIOR_STEPS=10, STEPS=10)
    assert tables[0] == tables[1]
    assert [line for line in tables[0] if line.startswith(("policy:", "best:"))] == [
        f"policy: {tmp_path / 'run/policies/greedy/10'}",
        f"best:   {tmp_path / 'run/policies/best/10'}",
    ]
    records = tiny_runs.read_lines(tmp_path / "run")
    lines = [(line["stage"], line["step"]) for line in records if "event" not in line]
    assert lines == [("behavior", 10)] * 2 + [("fbrc", 10)] * 2
    assert (tmp_path / "run/policies/greedy/10/saved_model.pb").exists()
    assert list(tmp_path.rglob("*.tmp*")) == []
    for name in ("worker0_tmp", "worker1_tmp"):
        assert list((tmp_path / name).iterdir()) == []


@pytest.mark.slow
def test_run_goes_on_under_another_strategy(tmp_path, pendulum_data):
    flags, cpus = ["--strategy", "mirrored"], ["train.logical_cpus = 2"]
    wait(
        tmp_path,
        {"first": start_train(tmp_path, pendulum_data, "first", {}, flags, cpus, STEPS=10)},
    )
    run_of_two_workers(tmp_path, pendulum_data, STEPS=20)
    assert tiny_runs.train(tmp_path / "run", pendulum_data, STEPS=30) == 0
    lines = [line for line in tiny_runs.read_lines(tmp_path / "run") if "critic_loss" in line]
    assert [line["step"] for line in lines] == [10, 20, 30]


def test_batch_that_cannot_be_split_is_refused(tmp_path, pendulum_data):
    flags, cpus = ["--strategy", "mirrored"], ["train.logical_cpus = 3"]
    process = start_train(tmp_path, pendulum_data, "odd", {}, flags, cpus)
    assert process.wait(timeout=TIME_LIMIT) == 2
    message = (tmp_path / "odd.log").read_text().splitlines()[-1]
    assert message.startswith("train: batch_size is 32; under a strategy of 3 replicas")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    "config, message",
    [
        (None, "which needs TF_CONFIG"),
        ("{", "TF_CONFIG is {;"),
        ('{"cluster": {"worker": ["a:1"]}, "task": {"type": "worker", "index": 1}}', "must be one"),
    ],
)
def test_wrong_cluster_is_an_input_error(monkeypatch, config, message):
    monkeypatch.delenv("TF_CONFIG", raising=False)
    if config is not None:
        monkeypatch.setenv("TF_CONFIG", config)
    with pytest.raises(InputError, match=message):
        strategies.create_strategy("multi_worker")


def test_unknown_strategy_is_an_input_error():
    with pytest.raises(InputError, match="strategy is 'parallel'; it must be 'none', 'mirrored'"):
        strategies.create_strategy("parallel")


@pytest.mark.parametrize("count", [0, 2.0, True])
def test_wrong_number_of_cpus_is_an_input_error(count):
    with pytest.raises(InputError, match="logical_cpus is"):
        strategies.create_strategy("mirrored", count)
