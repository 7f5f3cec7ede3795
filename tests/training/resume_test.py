"""A run that is killed and started again ends like one that was not, to the last bit."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf

from tests.helpers import tiny_runs

# As large as in real runs: a race between operations may be lost only when they take long.
_SIZES = {
    **{"BEHAVIOR_STEPS": 4000, "STEPS": 3000, "EVAL_INTERVAL": 500, "BATCH_SIZE": 256},
    **{"train.log_interval": 100, "train.checkpoint_interval": 50},
}
_NETWORKS = [
    "create_offset_network.fc_layer_params = (256, 256)",
    "create_actor_network.fc_layer_params = (256, 256)",
]


def checkpoint_tensors(root_dir):
    """Every tensor of the newest checkpoint of each stage."""
    tensors = {}
    for folder in ("behavior/train/checkpoints", "fbrc/train/checkpoints"):
        newest = tf.train.latest_checkpoint(os.path.join(root_dir, folder))
        assert newest is not None
        reader = tf.train.load_checkpoint(newest)
        for name in reader.get_variable_to_shape_map():
            if name != "_CHECKPOINTABLE_OBJECT_GRAPH":
                tensors[folder, name] = reader.get_tensor(name)
    return tensors


def without_times(value):
    """The content of result.json or of a line of metrics.jsonl, without what a clock gave."""
    if not isinstance(value, dict):
        return value
    times = ("seconds", "updates_per_second")
    return {k: without_times(v) for k, v in value.items() if k not in times}


def assert_same_run(root_dir, other_dir):
    """Asserts equal bits of checkpoints, metrics.jsonl, result.json and the exported policies."""
    tensors, others = checkpoint_tensors(root_dir), checkpoint_tensors(other_dir)
    assert tensors.keys() == others.keys()
    kinds = ("/m/", "actor", "critic", "target", "log_alpha", "train_step")
    assert all(any(kind in name for _, name in tensors) for kind in kinds)
    for name, tensor in tensors.items():
        np.testing.assert_array_equal(tensor, others[name], err_msg=str(name))
    lines = [list(map(without_times, tiny_runs.read_lines(d))) for d in (root_dir, other_dir)]
    assert lines[0] == lines[1]
    results = [json.loads((d / "result.json").read_text()) for d in (root_dir, other_dir)]
    assert without_times(results[0]) == without_times(results[1])
    observations = {"observation": tf.random.stateless_uniform([100, 3], [0, 1], -1.0, 1.0)}
    versions = [
        sorted(p.relative_to(d) for p in d.glob("policies/*/*")) for d in (root_dir, other_dir)
    ]
    assert versions[0] == versions[1]
    assert {version.parent.name for version in versions[0]} == {"greedy", "best"}
    for version in versions[0]:
        actions = [
            tf.saved_model.load(str(d / version)).signatures["serving_default"](**observations)
            for d in (root_dir, other_dir)
        ]
        tf.nest.map_structure(np.testing.assert_array_equal, *actions)


def run_killed(root_dir, data, kills, seed=0, **options):
    """Runs to the end over kills, as of the worker; returns the lines that tell of them."""
    arguments = tiny_runs.train_arguments(root_dir, data, **options)
    command = [
        sys.executable,
        "-m",
        "tests.helpers.resume_worker",
        root_dir,
        seed,
        kills,
        *arguments,
    ]
    environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"}
    done = subprocess.run(
        list(map(str, command)), cwd=tiny_runs.ROOT, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr[-4000:]
    return [line for line in done.stdout.splitlines() if line.startswith("kill ")]


def test_a_kill_in_each_stage_changes_nothing(tmp_path, pendulum_data, tiny_run):
    files = [f"{folder}train/checkpoints/ckpt-10.index" for folder in ("behavior/", "fbrc/")]
    kills = run_killed(tmp_path / "killed", pendulum_data, ",".join(files))
    assert kills == [f"kill {i}: while it wrote {file}" for i, file in enumerate(files, 1)]
    assert_same_run(tiny_run, tmp_path / "killed")


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0])
def test_twenty_kills_change_nothing(tmp_path, pendulum_data, seed):
    options = {**_SIZES, "bindings": _NETWORKS}
    assert not run_killed(tmp_path / "whole", pendulum_data, 0, **options)
    kills = run_killed(tmp_path / "killed", pendulum_data, 20, seed, **options)
    print("\n".join(kills))
    assert len(kills) == 20
    assert any("wrote" in kill and "/checkpoints/" in kill for kill in kills)
    assert "wrote policies/" in kills[-1]
    assert_same_run(tmp_path / "whole", tmp_path / "killed")
