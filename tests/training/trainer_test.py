"""The driver: what a run leaves on disk, how it resumes after an interruption, what it refuses."""

import json
import os
import re
import signal
import subprocess
import sys
import time

import h5py
import numpy as np
import pytest

from fbrc_agent import cli
from tests.helpers import tiny_runs

FBRC_LOSSES = {
    "critic_loss",
    "actor_loss",
    "alpha_loss",
    "gradient_penalty",
    "behavior_log_prob",
    "offset_gradient_norm",
    "behavior_gradient_norm",
    "q_policy",
    "q_data",
    "q_start",
    "log_mu_start",
    "entropy",
    "alpha",
}
BEHAVIOR_LOSSES = {"behavior_loss", "alpha_loss", "log_prob", "entropy", "alpha"}
SCORES = {"return_mean", "return_std", "length_mean", "normalized_score", "returns", "lengths"}
# Of the tiny run: 3 episodes of 200 rows; the last row of each has no next observation.
NUM_TRANSITIONS = tiny_runs.NUM_EPISODES * (tiny_runs.EPISODE_STEPS - 1)


def read_result(root_dir):
    return json.loads((root_dir / "result.json").read_text())


def lines_with(root_dir, stage, name):
    return [r for r in tiny_runs.read_lines(root_dir) if r["stage"] == stage and name in r]


def read_operative_config(root_dir):
    """Returns the bindings of a run, all but the number of updates."""
    bindings = (root_dir / "operative_config.gin").read_text().splitlines()
    return {b for b in bindings if " = " in b and not b.startswith("STEPS")}


# What a run leaves.


def test_run_has_the_documented_files(tiny_run):
    for name in [
        "run.json",
        "operative_config.gin",
        "behavior/train/checkpoints/ckpt-20/manifest.json",
        "behavior/trained/network.json",
        "fbrc/train/checkpoints/ckpt-20/agent.index",
        "fbrc/eval",
        "policies/greedy/20/saved_model.pb",
        "metrics.jsonl",
        "result.json",
    ]:
        assert (tiny_run / name).exists(), name
    assert list(tiny_run.rglob("*.tmp*")) == []


def test_result_has_the_documented_entries(tiny_run):
    result = read_result(tiny_run)
    names = {"algorithm", "task", "reference_scores", "seed", "data", "stages"}
    assert set(result) == names | {"policy", "best_policy"}
    assert result["algorithm"] == "fbrc"
    assert (result["task"], result["seed"]) == ("Pendulum-v1", 0)
    assert set(result["stages"]) == {"behavior", "fbrc"}
    for stage in result["stages"].values():
        assert set(stage) == {
            "label",
            "steps",
            "updates_per_second",
            "return_mean",
            "return_std",
            "returns",
            "normalized_score",
            "doubts",
        }
        assert stage["steps"] == 20
        assert stage["updates_per_second"] > 0
        assert len(stage["returns"]) == 2
        assert stage["return_mean"] == pytest.approx(np.mean(stage["returns"]))
        assert stage["return_std"] == pytest.approx(np.std(stage["returns"]))
    assert result["policy"] == "policies/greedy/20"
    assert (tiny_run / result["policy"]).is_dir() and (tiny_run / result["best_policy"]).is_dir()


def test_result_describes_the_data(tiny_run, pendulum_data):
    with h5py.File(pendulum_data) as file:
        rewards = file["rewards"][()].astype(np.float64)
        rows = file["observations"][()].reshape(tiny_runs.NUM_EPISODES, tiny_runs.EPISODE_STEPS, 3)
    observations = rows[:, :-1].reshape(-1, 3)  # The next observation of a last row is not there.
    returns = rewards.reshape(tiny_runs.NUM_EPISODES, tiny_runs.EPISODE_STEPS).sum(axis=1)
    data = read_result(tiny_run)["data"]
    assert data.pop("checksum")
    assert data.pop("return_mean") == pytest.approx(returns.mean(), rel=1e-6)
    assert data.pop("return_std") == pytest.approx(returns.std(), rel=1e-5)
    assert data == {
        "source": str(pendulum_data),
        "transitions": NUM_TRANSITIONS,
        "episodes": tiny_runs.NUM_EPISODES,
        "observation_size": 3,
        "observation_minimum": observations.min(axis=0).tolist(),
        "observation_maximum": observations.max(axis=0).tolist(),
        "action_size": 1,
        "action_minimum": [-2.0],
        "action_maximum": [2.0],
        "normalization": None,
    }


@pytest.mark.parametrize(
    "stage, names, steps",
    [
        ("behavior", BEHAVIOR_LOSSES, [10, 20]),
        ("behavior", SCORES, [20]),
        ("fbrc", FBRC_LOSSES, [10, 20]),
        ("fbrc", SCORES, [10, 20]),
    ],
)
def test_metrics_have_the_documented_lines(tiny_run, stage, names, steps):
    lines = lines_with(tiny_run, stage, min(names - {"alpha", "entropy", "alpha_loss"}))
    assert [line["step"] for line in lines] == steps
    for line in lines:
        assert set(line) == names | {"stage", "step", "seconds"}


def test_losses_are_finite(tiny_run):
    for line in tiny_runs.read_lines(tiny_run):
        numbers = [value for value in line.values() if isinstance(value, (int, float))]
        assert np.isfinite(numbers).all()


def test_second_start_of_a_complete_run_changes_nothing(tiny_run, pendulum_data, capsys):
    before = tiny_runs.read_files(tiny_run)
    assert tiny_runs.train(tiny_run, pendulum_data) == 0
    assert tiny_runs.read_files(tiny_run) == before
    row = capsys.readouterr().out.splitlines()[4]
    assert row.startswith("F-BRC")
    assert f"{read_result(tiny_run)['stages']['fbrc']['return_mean']:.1f}" in row


def test_operative_config_reproduces_the_run(tiny_run, tmp_path):
    config = tiny_run / "operative_config.gin"
    assert (
        tiny_runs.run_command("train", "--root_dir", tmp_path / "again", "--gin_file", config) == 0
    )
    first, again = (
        [
            {k: v for k, v in line.items() if k != "seconds"}
            for line in tiny_runs.read_lines(root_dir)
        ]
        for root_dir in (tiny_run, tmp_path / "again")
    )
    assert first == again


def test_network_of_another_run_gives_the_same_agent(tiny_run, pendulum_data, tmp_path):
    """The first stage is left out; nothing else depends on where the network comes from."""
    binding = f"train.pretrained = {{'behavior': '{tiny_run / 'behavior'}'}}"
    assert (
        tiny_runs.train(tmp_path / "run", pendulum_data, BEHAVIOR_STEPS=0, bindings=[binding]) == 0
    )
    lines = tiny_runs.read_lines(tmp_path / "run")
    expected = [line for line in tiny_runs.read_lines(tiny_run) if line["stage"] == "fbrc"]
    for line in lines + expected:
        del line["seconds"]
    assert lines == expected
    stages = read_result(tmp_path / "run")["stages"]
    assert stages["behavior"] == read_result(tiny_run)["stages"]["behavior"]
    assert not (tmp_path / "run" / "behavior").exists()


# Interruptions.


def start(arguments, cwd):
    """Starts a command; unlike a shell's background job, it heeds the interrupt."""
    return subprocess.Popen(
        [sys.executable, "-m", "fbrc_agent.cli", *arguments],
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": str(tiny_runs.ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )


def stop_beyond(process, root_dir, step, number):
    """Sends a signal once the second stage has logged a step; returns what was printed."""
    deadline = time.monotonic() + 300
    while not any(
        r["stage"] == "fbrc" and r["step"] >= step for r in tiny_runs.read_lines(root_dir)
    ):
        assert process.poll() is None, process.stderr.read()
        assert time.monotonic() < deadline, "the second stage has not come so far in 5 minutes"
        time.sleep(0.02)
    process.send_signal(number)
    _, errors = process.communicate(timeout=60)
    return errors


@pytest.fixture(scope="module")
def interrupted_run(tmp_path_factory, pendulum_data):
    """A run that was interrupted, went on, was killed, and went on to its end.

    Only the first start gets the gin file and the bindings; the others take operative_config.gin.
    """
    cwd = tmp_path_factory.mktemp("interrupted")
    root_dir = cwd / "run"
    options = {
        "STEPS": 1_000_000,
        "EVAL_INTERVAL": 100,
        "NUM_EVAL_EPISODES": 1,
        "train.log_interval": 20,
        "train.checkpoint_interval": 50,
    }
    process = start(tiny_runs.train_arguments(root_dir, pendulum_data, **options), cwd)
    errors = stop_beyond(process, root_dir, 120, signal.SIGINT)
    interrupted = {"code": process.returncode, "errors": errors}
    interrupted["config"] = read_operative_config(root_dir)
    interrupted["step"] = tiny_runs.read_lines(root_dir)[-1]["step"]

    again = ["train", "--root_dir", str(root_dir)]
    again += ["--gin_file", str(root_dir / "operative_config.gin")]
    process = start(again, cwd)
    stop_beyond(process, root_dir, interrupted["step"] + 150, signal.SIGKILL)
    killed_step = tiny_runs.read_lines(root_dir)[-1]["step"]
    # As if the kill had come in the middle of a line.
    with open(root_dir / "metrics.jsonl", "a") as file:
        file.write('{"stage": "fb')

    last = 100 * (killed_step // 100 + 1)
    assert tiny_runs.run_command(*again, "--gin_bindings", f"STEPS = {last}") == 0
    return root_dir, interrupted, last


def test_interrupt_ends_with_one_line(interrupted_run):
    _, interrupted, _ = interrupted_run
    assert interrupted["code"] == 130
    assert "Traceback" not in interrupted["errors"]
    message = interrupted["errors"].splitlines()[-1]
    assert message == "train: interrupted; the same command continues."


def test_interrupted_run_has_every_line_once(interrupted_run):
    root_dir, _, last = interrupted_run
    for name, interval in [("critic_loss", 20), ("returns", 100)]:
        steps = [line["step"] for line in lines_with(root_dir, "fbrc", name)]
        assert steps == list(range(interval, last + 1, interval))
    assert [line["step"] for line in lines_with(root_dir, "behavior", "returns")] == [20]


def test_interrupted_run_goes_on_at_a_checkpoint(interrupted_run):
    """Its clock is that of the training so far: a run from the start would be at 0 again."""
    root_dir, interrupted, last = interrupted_run
    seconds = [line["seconds"] for line in lines_with(root_dir, "fbrc", "critic_loss")]
    assert seconds == sorted(seconds)
    directory = root_dir / "fbrc" / "train" / "checkpoints"
    # One optimizer step an update, over all starts.
    import tensorflow as tf

    newest = str(directory / f"ckpt-{last}" / "agent")
    names = [name for name, _ in tf.train.list_variables(newest) if "iter" in name]
    counts = {int(tf.train.load_variable(newest, name)) for name in names}
    assert counts == {last}


def test_interrupted_run_is_completed(interrupted_run):
    root_dir, _, last = interrupted_run
    assert read_result(root_dir)["stages"]["fbrc"]["steps"] == last
    policy = root_dir / read_result(root_dir)["policy"]
    assert policy == root_dir / f"policies/greedy/{last}"
    assert (policy / "saved_model.pb").exists()


def test_operative_config_alone_gives_the_same_operative_config(interrupted_run):
    root_dir, interrupted, _ = interrupted_run
    extra = read_operative_config(root_dir) - interrupted["config"]
    assert interrupted["config"] <= read_operative_config(root_dir)
    assert {line.split(".")[0] for line in extra} <= {"export_policy"}  # Used at the end.
    assert "BehaviorAgent.optimizer = @behavior/Adam()" in interrupted["config"]
    assert "FbrcAgent.reward_bonus = 5.0" in interrupted["config"]


# Refusals: a sentence, and everything as it was.


def refuse(capsys, root_dir, data, **options):
    """Runs the command, which must refuse; returns its sentence."""
    before = tiny_runs.read_files(root_dir)
    existed = root_dir.exists()
    assert tiny_runs.train(root_dir, data, **options) == 2
    assert root_dir.exists() == existed
    assert tiny_runs.read_files(root_dir) == before
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.count("\n") == 1
    return captured.err.strip()


def test_refuses_no_behavior_updates_without_a_density(tmp_path, pendulum_data, capsys):
    error = refuse(capsys, tmp_path / "run", pendulum_data, BEHAVIOR_STEPS=0)
    assert "train.pretraining_steps['behavior'] is 0" in error
    assert "it must be 1 or more, or train.pretrained given" in error


def test_refuses_a_behavior_dir_without_a_density(tmp_path, pendulum_data, capsys):
    binding = f"train.pretrained = {{'behavior': '{tmp_path}'}}"
    error = refuse(capsys, tmp_path / "run", pendulum_data, bindings=[binding])
    assert f"train.pretrained['behavior'] is '{tmp_path}', which holds no trained network" in error


def test_refuses_a_density_of_other_data(tiny_run, tmp_path, capsys):
    tiny_runs.write_pendulum(tmp_path / "other.hdf5", seed=7)
    binding = f"train.pretrained = {{'behavior': '{tiny_run / 'behavior'}'}}"
    error = refuse(capsys, tmp_path / "run", tmp_path / "other.hdf5", bindings=[binding])
    assert "was trained on" in error
    assert "other.hdf5 (checksum" in error


@pytest.mark.parametrize(
    "options, message",
    [
        ({"SEED": 1}, "seed = 0, not 1"),
        ({"BATCH_SIZE": 16}, "batch_size = 32, not 16"),
        ({"TASK": "Hopper-v4", "NUM_EVAL_EPISODES": 0}, "task = Pendulum-v1, not Hopper-v4"),
        ({"FbrcAgent.gradient_penalty_weight": 1.0}, "gradient_penalty_weight = 0.1, not 1.0"),
        ({"FbrcAgent.gradient_clipping": 1.0}, "gradient_clipping = None, not 1.0"),
        ({"BEHAVIOR_STEPS": 30}, "trained with 20 updates, not 30"),
    ],
)
def test_refuses_the_directory_of_another_run(tiny_run, pendulum_data, capsys, options, message):
    assert message in refuse(capsys, tiny_run, pendulum_data, **options)


def test_refuses_the_directory_of_a_run_on_other_data(tiny_run, tmp_path, capsys):
    tiny_runs.write_pendulum(tmp_path / "other.hdf5", seed=7)
    assert "data checksum" in refuse(capsys, tiny_run, tmp_path / "other.hdf5")


@pytest.mark.parametrize(
    "options, message",
    [
        ({"BATCH_SIZE": 10_000}, f"at most {NUM_TRANSITIONS}, the number of transitions"),
        ({"SEED": -1}, "seed is -1"),
        ({"STEPS": 1e6}, "train.steps is 1000000.0; it must be an integer"),
        ({"EVAL_INTERVAL": -1}, "train.eval_interval is -1"),
        ({"TASK": "Hopper-v4"}, "sizes (3, 1), but Hopper-v4 has (11, 3)"),
    ],
)
def test_refuses_arguments_that_do_not_fit(tmp_path, pendulum_data, capsys, options, message):
    assert message in refuse(capsys, tmp_path / "run", pendulum_data, **options)


def test_table_of_the_command_is_printed(tiny_run, pendulum_data, capsys):
    tiny_runs.train(tiny_run, pendulum_data)
    rows = capsys.readouterr().out.splitlines()
    assert re.match(r"Pendulum-v1, .*: 597 transitions, 3 episodes, seed 0", rows[0])
    assert cli.COMMANDS["train"] is cli.train
