"""What every algorithm is held to: `check_algorithm` takes any of them."""

import json
import os
import pathlib
import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf

from fbrc_agent.datasets import batches, sources
from fbrc_agent.networks import saved_network
from fbrc_agent.training import agents, checkpoints, configuration, run_directory, run_log, trainer
from tests.helpers import tiny_runs

OBSERVATIONS = np.random.default_rng(0).uniform(-1.0, 1.0, [50, 3]).astype(np.float32)

# What a server has: TensorFlow, without this package and what it is built on.
SERVE = """
import sys
for name in ("fbrc_agent", "tf_agents", "tensorflow_probability", "gin"):
    sys.modules[name] = None  # An import of it fails.
import numpy as np, tensorflow as tf
model = tf.saved_model.load(sys.argv[1])
observation = tf.constant(np.load(sys.argv[2]))
np.save(sys.argv[3], model.signatures["serving_default"](observation=observation)["action"])
"""


def run_killed(root_dir, kills, arguments, seed=0):
    """Runs `train` to the end over kills, as `resume_worker`; returns what it printed of them."""
    command = [sys.executable, "-m", "tests.helpers.resume_worker", root_dir, seed, kills]
    done = subprocess.run(
        list(map(str, [*command, *arguments])),
        cwd=tiny_runs.ROOT,
        env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr[-4000:]
    return [line for line in done.stdout.splitlines() if line.startswith("kill ")]


def stages_of(root_dir):
    return [stage["name"] for stage in run_directory.read_identity(str(root_dir))["stages"]]


def checkpoint_tensors(root_dir):
    """Every tensor of the newest checkpoint of each stage."""
    tensors = {}
    for stage in stages_of(root_dir):
        newest = checkpoints.newest_complete(checkpoints.directory_of(str(root_dir / stage)))
        assert newest is not None
        reader = tf.train.load_checkpoint(newest)
        for name in reader.get_variable_to_shape_map():
            if name != "_CHECKPOINTABLE_OBJECT_GRAPH":
                tensors[stage, name] = reader.get_tensor(name)
    return tensors


def without_times(value):
    """The content of result.json or of a line of metrics.jsonl, without what a clock gave."""
    if not isinstance(value, dict):
        return value
    times = ("seconds", "updates_per_second")
    return {k: without_times(v) for k, v in value.items() if k not in times}


def assert_same_run(root_dir, other_dir):
    """Asserts equal bits of checkpoints, numbers, result.json and the exported policies."""
    tensors, others = checkpoint_tensors(root_dir), checkpoint_tensors(other_dir)
    assert tensors.keys() == others.keys()
    assert any("train_step" in name for _, name in tensors)
    for name, tensor in tensors.items():
        np.testing.assert_array_equal(tensor, others[name], err_msg=str(name))
    lines = [list(map(without_times, run_log.read_metrics(str(d)))) for d in (root_dir, other_dir)]
    assert lines[0] == lines[1]
    results = [json.loads((d / "result.json").read_text()) for d in (root_dir, other_dir)]
    assert without_times(results[0]) == without_times(results[1])
    versions = [
        sorted(p.relative_to(d) for p in d.glob("policies/*/*")) for d in (root_dir, other_dir)
    ]
    assert versions[0] == versions[1]
    assert {version.parent.name for version in versions[0]} == {"greedy", "best"}
    for version in versions[0]:
        actions = [
            tf.saved_model.load(str(d / version)).signatures["serving_default"](
                observation=tf.constant(OBSERVATIONS)
            )
            for d in (root_dir, other_dir)
        ]
        tf.nest.map_structure(np.testing.assert_array_equal, *actions)


def check_algorithm(arguments, data, directory, capsys, complete=None):
    """Checks an algorithm through the command line, on 20 updates of each stage.

    It trains; killed in each stage it resumes to the bit; its export acts like its agent in a
    process with TensorFlow alone; it is evaluated and plotted; it refuses data and tasks of other
    sizes, with both sides printed.

    Args:
      arguments: `arguments(root_dir, **sizes)` returns the arguments of `train`.
      data: The file of the data.
      directory: An empty directory.
      capsys: The fixture.
      complete: The directory of a complete run, if there is one.
    """
    if complete is None:
        complete = directory / "complete"
        assert tiny_runs.run_command(*arguments(complete)) == 0
    _check_records(complete, capsys.readouterr().out)
    _check_resumes(complete, directory / "killed", arguments)
    exported = _check_export(complete, directory)
    _check_evaluates(complete, exported, capsys)
    assert tiny_runs.run_command("plot", complete, "--output", directory / "x.png") == 0
    assert (directory / "x.png").stat().st_size > 10_000
    _check_refuses(arguments, data, directory, capsys)


def _check_records(root_dir, printed):
    result = json.loads((root_dir / "result.json").read_text())
    stages = stages_of(root_dir)
    assert list(result["stages"]) == stages and stages[-1] == result["algorithm"]
    lines = run_log.read_metrics(str(root_dir))
    for stage in stages:
        assert result["stages"][stage]["steps"] == 20
        losses = [r for r in lines if r["stage"] == stage and "returns" not in r]
        assert [r["step"] for r in losses] == [10, 20]
        assert np.isfinite([v for r in losses for v in r.values() if isinstance(v, float)]).all()
        assert len([r for r in lines if r["stage"] == stage and "returns" in r]) >= 1
        assert result["stages"][stage]["label"] in printed or not printed


def _check_resumes(complete, root_dir, arguments):
    saves = [f"{stage}/train/checkpoints/ckpt-10." for stage in stages_of(complete)]
    kills = run_killed(root_dir, ",".join(f"{save}*.tmp" for save in saves), arguments(root_dir))
    assert len(kills) == len(saves)
    for number, (kill, save) in enumerate(zip(kills, saves), 1):
        assert kill.startswith(f"kill {number}: while it wrote {save}")
    assert_same_run(complete, root_dir)
    resumed = [e for e in run_log.read_events(str(root_dir)) if e["event"] == "resumed"]
    assert {event["stage"] for event in resumed} <= set(stages_of(complete))


def _check_export(complete, directory):
    """The export of a process that has only the run's directory acts like the agent's mode."""
    output, given, acted = (directory / name for name in ("model", "given.npy", "acted.npy"))
    np.save(given, OBSERVATIONS)
    environment = tiny_runs.environment()
    for command in (
        ["-m", "fbrc_agent.cli", "export", "--root_dir", complete, "--output", output],
        ["-c", SERVE, output / "1", given, acted],
    ):
        done = subprocess.run(
            [sys.executable, "-W", "ignore", *map(str, command)],
            cwd=directory,
            env=environment,
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr[-4000:]
    np.testing.assert_allclose(np.load(acted), _actions(complete), rtol=1e-5, atol=1e-6)
    return output


def _with_configuration(root_dir, function):
    """Calls a function with the gin configuration of a run."""
    import gin

    gin.clear_config()
    try:
        configuration.parse([str(root_dir / "operative_config.gin")], [])
        return function()
    finally:
        gin.clear_config()


def _create(root_dir):
    """Returns a new agent of a run."""

    def create():
        algorithm = trainer.configured_algorithm()
        data = run_directory.read_identity(str(root_dir))["data"]
        made, _ = agents.create(algorithm, *saved_network.specs_from_description(data), seed=7)
        return made[algorithm.name]

    return _with_configuration(root_dir, create)


def _actions(root_dir):
    """Returns the mode of the restored agent's policy for `OBSERVATIONS`."""
    from tf_agents.policies import greedy_policy
    from tf_agents.trajectories import time_step as ts

    agent = _create(root_dir)
    newest = checkpoints.newest_complete(
        checkpoints.directory_of(str(root_dir / stages_of(root_dir)[-1]))
    )
    tf.train.Checkpoint(agent=agent).read(newest).expect_partial()
    time_step = ts.restart(tf.constant(OBSERVATIONS), batch_size=len(OBSERVATIONS))
    return greedy_policy.GreedyPolicy(agent.policy).action(time_step).action.numpy()


def _check_evaluates(complete, exported, capsys):
    capsys.readouterr()
    arguments = ("evaluate", "--policy", exported, "--episodes", 2, "--seed", 1000)
    assert tiny_runs.run_command(*arguments) == 0
    rows = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert [row[0] for row in rows] == ["episode", "0", "1", "mean"]
    is_greedy = _with_configuration(complete, lambda: trainer.configured_algorithm().is_greedy)
    if is_greedy:  # As the run evaluated its last update.
        last = [r for r in run_log.read_metrics(str(complete)) if "returns" in r][-1]
        printed = [float(row[2]) for row in rows[1:3]]
        assert printed == pytest.approx(last["returns"], abs=0.06)


def _check_refuses(arguments, data, directory, capsys):
    root_dir = directory / "refused"
    assert tiny_runs.run_command(*arguments(root_dir, TASK="Hopper-v4")) == 2
    assert "sizes (3, 1), but Hopper-v4 has (11, 3)" in capsys.readouterr().err
    assert not pathlib.Path(root_dir).exists()
    experience = batches.first_batch(sources.load_dataset(str(data)), 4, 0)
    wide = tf.concat([experience.observation] * 2, axis=-1)
    with pytest.raises(ValueError) as raised:
        _create(directory / "killed").loss(experience._replace(observation=wide))
    assert "[4, 2, 6]" in str(raised.value) and "[3]" in str(raised.value)
