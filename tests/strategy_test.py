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

from tests import strategy_worker, tiny

STRATEGIES = ["mirrored", "multi_worker"]
# Seconds; the processes need 20 each where they have a core of their own.
TIME_LIMIT = 300


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
        cwd=tiny.ROOT,
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
            arguments = ["tests.strategy_worker", kind, directory / f"{name}.npz"]
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
    """Two replicas that both add the whole penalty train with twice its weight."""
    weight = 2 * strategy_worker.PENALTY_WEIGHT
    doubled = strategy_worker.train(tf.distribute.get_strategy(), weight)
    for prefix in ("fbrc/variables/", "fbrc/losses/"):
        with pytest.raises(AssertionError, match="Not equal to tolerance"):
            assert_close(doubled, results["none"], prefix)
