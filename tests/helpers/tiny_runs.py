"""Runs of seconds: a few hundred random transitions of Pendulum-v1 and small networks."""

import json
import os
import pathlib
import sys

import gin
import numpy as np

from fbrc_agent import cli
from fbrc_agent.datasets import hdf5
from fbrc_agent.environments import gymnasium_environment

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
NUM_EPISODES, EPISODE_STEPS = 3, 200

NETWORKS = [
    "MixtureBehaviorNetwork.fc_layer_params = (16,)",
    "create_offset_network.fc_layer_params = (16, 16)",
    "create_actor_network.fc_layer_params = (16, 16)",
]
SIZES = {
    "TASK": "Pendulum-v1",
    "SEED": 0,
    "BATCH_SIZE": 32,
    "STEPS": 20,
    "BEHAVIOR_STEPS": 20,
    "EVAL_INTERVAL": 10,
    "NUM_EVAL_EPISODES": 2,
    "train.log_interval": 10,
    "train.checkpoint_interval": 10,
}


def write_pendulum(path, seed=0):
    """Writes complete episodes of uniform actions; returns their undiscounted returns."""
    generator = np.random.default_rng(seed)
    environment = gymnasium_environment.make("Pendulum-v1")
    columns = {name: [] for name in ("observations", "actions", "rewards", "terminals", "timeouts")}
    for episode in range(NUM_EPISODES):
        observation, _ = environment.reset(seed=seed + episode)
        for _ in range(EPISODE_STEPS):
            action = generator.uniform(-2, 2, 1).astype(np.float32)
            following, reward, terminated, truncated, _ = environment.step(action)
            row = (observation, action, reward, terminated, truncated)
            for column, value in zip(columns.values(), row):
                column.append(value)
            observation = following
    bounds = {"action_minimum": [-2.0], "action_maximum": [2.0]}
    hdf5.save_d4rl_hdf5(str(path), **columns, attributes=bounds)
    return np.sum(np.reshape(columns["rewards"], [NUM_EPISODES, EPISODE_STEPS]), axis=1)


def train_arguments(root_dir, data, gin_file="fbrc.gin", bindings=(), networks=NETWORKS, **sizes):
    """Returns the arguments of the command `train`."""
    values = {**SIZES, "DATA": str(data), **sizes}
    lines = [f"{name} = {value!r}" for name, value in values.items()]
    lines += [*networks, *bindings]
    return [
        *("train", "--root_dir", str(root_dir), "--gin_file", str(gin_file)),
        *("--gin_bindings", *lines),
    ]


def run_command(*arguments):
    """Runs a command of the command line in this process; returns its exit code."""
    gin.clear_config()
    before = list(sys.argv)
    try:
        return cli.main([str(argument) for argument in arguments])
    finally:
        sys.argv[:] = before
        gin.clear_config()


def train(root_dir, data, **options):
    """Runs the command `train`; returns its exit code."""
    return run_command(*train_arguments(root_dir, data, **options))


def environment():
    """Returns the environment of a process that finds this package from any directory."""
    return {**os.environ, "PYTHONPATH": str(ROOT), "TF_CPP_MIN_LOG_LEVEL": "3"}


def fresh_environment(**variables):
    """Returns the environment variables of a process that `import fbrc_agent` has not changed."""
    inherited = {k: v for k, v in os.environ.items() if k != "TF_USE_LEGACY_KERAS"}
    return {**inherited, **variables}


def read_lines(root_dir):
    """Returns what metrics.jsonl holds; a line that is being written is left out."""
    path = pathlib.Path(root_dir) / "metrics.jsonl"
    lines = path.read_text().splitlines(keepends=True) if path.exists() else []
    return [json.loads(line) for line in lines if line.endswith("\n")]


def read_files(directory):
    """Returns the bytes and times of change of all files below a directory."""
    files = [path for path in pathlib.Path(directory).rglob("*") if path.is_file()]
    return {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in files}
