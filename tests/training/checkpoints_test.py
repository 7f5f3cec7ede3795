"""Checkpoints: a damaged one is quarantined, the one before is used, a foreign one refused."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf
from tf_agents.specs import tensor_spec
from tf_agents.trajectories import time_step as ts

from fbrc_agent.agents import behavior as behavior_agent
from fbrc_agent.evaluation import rollouts
from fbrc_agent.networks import behavior_network
from fbrc_agent.training import checkpoints, run_log
from fbrc_agent.utils.errors import InputError
from tests.helpers import tiny_runs

IDENTITY = {"stage": "behavior", "task": "Pendulum-v1", "seed": 0, "data checksum": "abc"}
DATA, INDEX, MANIFEST = "agent.data-00000-of-00001", "agent.index", "manifest.json"
BOUNDED_ACTION = tensor_spec.BoundedTensorSpec([1], tf.float32, -2.0, 2.0)


def make_agent(fc_layer_params=(8,), observation_size=3):
    observation = tf.TensorSpec([observation_size], tf.float32)
    return behavior_agent.BehaviorAgent(
        ts.time_step_spec(observation),
        BOUNDED_ACTION,
        behavior_network.MixtureBehaviorNetwork(
            observation, BOUNDED_ACTION, fc_layer_params=fc_layer_params
        ),
        tf.keras.optimizers.legacy.Adam(1e-3),
        tf.keras.optimizers.legacy.Adam(1e-3),
        train_step_counter=tf.Variable(0, dtype=tf.int64),
    )


def make_saver(directory, agent, keep=3):
    """Returns what saves an agent as a run does, at a step, after an update of all variables."""
    variables = agent._behavior_network.trainable_variables

    def save(step):
        agent.train_step_counter.assign(step)
        agent._optimizer.apply_gradients([(tf.ones_like(v), v) for v in variables])
        checkpoints.save(str(directory), agent, IDENTITY, keep)

    return save


def resume(directory, agent=None, identity=IDENTITY):
    return checkpoints.resume(str(directory), agent or make_agent(), identity)


def restored_step(directory):
    """Returns the step that an agent resumes from."""
    agent = make_agent()
    resume(directory, agent)
    return int(agent.train_step_counter.numpy())


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    directory = tmp_path_factory.mktemp("saved") / "checkpoints"
    save = make_saver(directory, make_agent())
    for step in (10, 20, 30, 40):
        save(step)
    return directory


@pytest.fixture
def directory(saved, tmp_path):
    """A copy of a directory with the checkpoints 20, 30 and 40."""
    return shutil.copytree(saved, tmp_path / "checkpoints")


def truncate(path):
    os.truncate(path, path.stat().st_size // 2)


def flip_byte(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0x10
    path.write_bytes(content)


DAMAGES = {"truncated": truncate, "flipped": flip_byte, "deleted": os.remove}


def read_files(directory):
    return {path: path.read_bytes() for path in directory.rglob("*") if path.is_file()}


# What is kept.


def test_last_checkpoints_are_kept_with_their_manifests(saved):
    assert set(read_files(saved)) == {
        saved / f"ckpt-{step}" / name for step in (20, 30, 40) for name in (DATA, INDEX, MANIFEST)
    }


def test_manifest_says_what_the_checkpoint_is(saved):
    manifest = json.loads((saved / "ckpt-40" / MANIFEST).read_text())
    assert manifest["step"] == 40
    assert manifest["identity"] == IDENTITY
    assert set(manifest["files"]) == {DATA, INDEX}


def test_complete_checkpoint_is_restored_without_a_word(directory, capsys):
    before = read_files(directory)
    assert restored_step(directory) == 40
    assert read_files(directory) == before
    assert capsys.readouterr().err == ""


def test_resumed_run_keeps_as_many(directory):
    agent = make_agent()
    resume(directory, agent)
    save = make_saver(directory, agent, keep=2)
    save(50)
    assert sorted(directory.iterdir()) == [directory / "ckpt-40", directory / "ckpt-50"]


def test_fresh_directory_needs_nothing(tmp_path):
    resume(tmp_path / "none")
    assert not (tmp_path / "none").exists()


# Damage.


@pytest.mark.parametrize("kind", [DATA, INDEX])
@pytest.mark.parametrize("damage", DAMAGES)
def test_damaged_checkpoint_is_quarantined_for_the_one_before(directory, capsys, damage, kind):
    DAMAGES[damage](directory / "ckpt-40" / kind)
    assert restored_step(directory) == 30
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1
    assert lines[0].startswith(str(directory / "ckpt-40" / kind))
    assert "resuming from ckpt-30" in lines[0]
    assert not (directory / "ckpt-40").exists()
    assert (directory / "damaged-ckpt-40").exists()


@pytest.mark.parametrize(
    "damage, words",
    [
        ("truncated", r"has \d+ bytes, not \d+"),
        ("flipped", "its SHA-256 is not that of what was saved"),
        ("deleted", "is missing"),
    ],
)
def test_message_says_what_is_wrong(directory, capsys, damage, words):
    DAMAGES[damage](directory / "ckpt-40" / DATA)
    resume(directory)
    assert re.search(words, capsys.readouterr().err)


def test_two_damaged_checkpoints_lead_to_the_third(directory, capsys):
    flip_byte(directory / "ckpt-40" / DATA)
    truncate(directory / "ckpt-30" / INDEX)
    assert restored_step(directory) == 20
    assert len(capsys.readouterr().err.splitlines()) == 2


def test_as_many_damaged_checkpoints_are_kept_as_complete_ones(directory):
    for step in (40, 40, 50, 60):
        agent = make_agent()
        save = make_saver(directory, agent, keep=2)
        save(step)
        flip_byte(directory / f"ckpt-{step}" / DATA)
        resume(directory, agent)
    make_saver(directory, make_agent(), keep=2)(70)
    damaged = sorted(directory.glob("damaged-*"))
    assert damaged == [directory / "damaged-ckpt-50", directory / "damaged-ckpt-60"]


def test_nothing_complete_is_refused_and_left_alone(directory):
    for path in directory.glob(f"*/{DATA}"):
        flip_byte(path)
    before = read_files(directory)
    with pytest.raises(InputError, match="No checkpoint in .* is complete .*ckpt-40.*ckpt-20"):
        resume(directory)
    assert read_files(directory) == before


def test_reader_passes_over_a_damaged_checkpoint_and_changes_nothing(directory, capsys):
    flip_byte(directory / "ckpt-40" / DATA)
    before = read_files(directory)
    assert checkpoints.newest_complete(str(directory)) == str(directory / "ckpt-30" / "agent")
    assert read_files(directory) == before
    assert "ckpt-30 is used instead" in capsys.readouterr().err


def empty_files(path):
    path.write_text(json.dumps({**json.loads(path.read_text()), "files": {}}))


@pytest.mark.parametrize(
    "damage, words",
    [
        (os.remove, "is missing"),
        (truncate, "is damaged"),
        (lambda path: path.write_text("{}"), "is damaged"),
        (empty_files, "is damaged"),
    ],
)
def test_checkpoint_with_a_damaged_manifest_is_quarantined(directory, capsys, damage, words):
    before = read_files(directory / "ckpt-40")
    damage(directory / "ckpt-40" / MANIFEST)
    assert restored_step(directory) == 30
    assert f"{directory / 'ckpt-40' / MANIFEST} {words}" in capsys.readouterr().err
    kept = directory / "damaged-ckpt-40" / DATA
    assert kept.read_bytes() == before[directory / "ckpt-40" / DATA]


def test_checkpoints_of_an_older_version_are_refused_and_left_alone(tmp_path):
    (tmp_path / "ckpt-40.index").write_bytes(b"flat")
    with pytest.raises(InputError, match="ckpt-40.index was saved by an older fbrc_agent, this is"):
        resume(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["ckpt-40.index"]


# A process killed in a save.


def test_save_that_was_cut_is_passed_over(directory, capsys):
    cut = directory / "ckpt-50.0123abcd.1.tmp"
    shutil.copytree(directory / "ckpt-40", cut)
    (cut / MANIFEST).unlink()
    assert restored_step(directory) == 40
    assert capsys.readouterr().err == ""


def test_first_save_that_was_cut_starts_the_stage_again(directory):
    for step in (30, 40):
        shutil.rmtree(directory / f"ckpt-{step}")
    os.rename(directory / "ckpt-20", directory / "ckpt-20.0123abcd.1.tmp")
    assert checkpoints.newest_complete(str(directory)) is None
    assert restored_step(directory) == 0


def test_save_that_fails_leaves_nothing(directory, monkeypatch):
    def fail(*arguments):
        raise OSError(28, "No space left on device")

    before = read_files(directory)
    monkeypatch.setattr(checkpoints.json_files, "write_json", fail)
    with pytest.raises(OSError, match="No space left"):
        make_saver(directory, make_agent())(50)
    assert read_files(directory) == before


# Without an interval.


def test_only_an_interruption_and_the_end_save_at_an_interval_of_0(
    tmp_path, pendulum_data, monkeypatch
):
    options = {"EVAL_INTERVAL": 5, "train.checkpoint_interval": 0}
    arguments = tiny_runs.train_arguments(tmp_path, pendulum_data, "behavior.gin", **options)
    evaluate = rollouts.evaluate

    def terminate(*args):
        os.kill(os.getpid(), signal.SIGTERM)
        return evaluate(*args)

    with monkeypatch.context() as context:
        context.setattr(rollouts, "evaluate", terminate)
        assert tiny_runs.run_command(*arguments) == 143
    saved = tmp_path / "behavior" / "train" / "checkpoints"
    assert [path.name for path in saved.iterdir()] == ["ckpt-5"]
    assert tiny_runs.run_command(*arguments) == 0
    assert sorted(path.name for path in saved.iterdir()) == ["ckpt-20", "ckpt-5"]
    events = [(e["step"], e["event"]) for e in run_log.read_events(str(tmp_path))]
    assert events == [(5, "interrupted"), (5, "resumed")]


# Checkpoints of other runs.


@pytest.mark.parametrize(
    "name, value", [("seed", 1), ("task", "Hopper-v4"), ("data checksum", "def")]
)
def test_checkpoint_of_another_run_is_refused(directory, name, value):
    before = read_files(directory)
    message = f"ckpt-40 has {name} {IDENTITY[name]!r}, this run's is {value!r}"
    with pytest.raises(InputError, match=message):
        resume(directory, identity={**IDENTITY, name: value})
    assert read_files(directory) == before


def test_checkpoint_of_other_networks_is_refused(directory):
    with pytest.raises(InputError, match=r"shape \(.*8.*\) .* variable with shape \(.*16.*\)"):
        resume(directory, make_agent((16,)))


@pytest.mark.parametrize(
    "fc_layer_params, message", [((8, 8), r"not bound .*kernel:0' shape=\(8, 8\)"), ((), "shape")]
)
def test_checkpoint_of_another_depth_is_refused(directory, fc_layer_params, message):
    with pytest.raises(InputError, match=message):
        resume(directory, make_agent(fc_layer_params))


def test_checkpoint_of_another_format_is_refused(directory):
    path = directory / "ckpt-40" / MANIFEST
    path.write_text(json.dumps({**json.loads(path.read_text()), "format": 99, "version": "9.0"}))
    with pytest.raises(InputError, match=r"saved by fbrc_agent 9.0 in format 99, this is "):
        resume(directory)


# Runs.


@pytest.fixture(scope="module")
def continued(tiny_run, pendulum_data, tmp_path_factory):
    """A run of 20 updates that went on to 30, undamaged."""
    root_dir = shutil.copytree(tiny_run, tmp_path_factory.mktemp("continued") / "run")
    assert tiny_runs.train(root_dir, pendulum_data, STEPS=30) == 0
    return root_dir


@pytest.mark.slow
@pytest.mark.parametrize("damage", DAMAGES)
def test_damaged_run_ends_as_an_undamaged_one(
    continued, tiny_run, pendulum_data, tmp_path, capsys, damage
):
    root_dir = shutil.copytree(tiny_run, tmp_path / "run")
    kind = INDEX if damage == "deleted" else DATA
    DAMAGES[damage](root_dir / "fbrc" / "train" / "checkpoints" / "ckpt-20" / kind)
    assert tiny_runs.train(root_dir, pendulum_data, STEPS=30) == 0
    assert "resuming from ckpt-10" in capsys.readouterr().err
    ours, theirs = (
        [
            {name: value for name, value in line.items() if name != "seconds"}
            for line in run_log.read_metrics(str(each))
        ]
        for each in (root_dir, continued)
    )
    assert ours == theirs
    ours, theirs = (
        tf.train.load_checkpoint(str(each / "fbrc" / "train" / "checkpoints" / "ckpt-30" / "agent"))
        for each in (root_dir, continued)
    )
    for name in theirs.get_variable_to_shape_map():
        if "OBJECT_GRAPH" not in name and "save_counter" not in name:
            np.testing.assert_array_equal(ours.get_tensor(name), theirs.get_tensor(name), name)


@pytest.mark.slow
def test_run_without_a_complete_checkpoint_is_refused(tiny_run, pendulum_data, tmp_path, capsys):
    root_dir = shutil.copytree(tiny_run, tmp_path / "run")
    for path in (root_dir / "fbrc" / "train" / "checkpoints").glob(f"*/{DATA}"):
        truncate(path)
    assert tiny_runs.train(root_dir, pendulum_data, STEPS=30) == 2
    assert "No checkpoint in" in capsys.readouterr().err


@pytest.mark.slow
def test_run_does_not_resume_from_a_checkpoint_copied_from_another_seed(
    tiny_run, pendulum_data, tmp_path, capsys
):
    root_dir = shutil.copytree(tiny_run, tmp_path / "run")
    run = json.loads((root_dir / "run.json").read_text())
    (root_dir / "run.json").write_text(json.dumps({**run, "seed": 1}))
    (root_dir / "operative_config.gin").unlink()
    assert tiny_runs.train(root_dir, pendulum_data, STEPS=30, SEED=1) == 2
    assert "ckpt-20 has run '" in capsys.readouterr().err


def test_run_does_not_resume_with_the_network_of_another_run(
    tiny_run, pendulum_data, tmp_path, capsys
):
    before = (tiny_run / "metrics.jsonl").read_bytes()
    binding = f"train.pretrained = {{'behavior': '{tiny_run / 'behavior'}'}}"
    assert tiny_runs.train(tiny_run, pendulum_data, STEPS=30, bindings=[binding]) == 2
    error = capsys.readouterr().err
    assert "holds a run with pretrained networks = {}, not {'behavior': '" in error
    assert (tiny_run / "metrics.jsonl").read_bytes() == before


@pytest.mark.slow
def test_export_passes_over_a_damaged_checkpoint(tiny_run, tmp_path, capsys):
    root_dir = shutil.copytree(tiny_run, tmp_path / "run")
    flip_byte(root_dir / "fbrc" / "train" / "checkpoints" / "ckpt-20" / DATA)
    output = tmp_path / "policy"
    assert tiny_runs.run_command("export", "--root_dir", root_dir, "--output", output) == 0
    assert "ckpt-10 is used instead" in capsys.readouterr().err


def test_no_checkpoint_to_keep_is_refused(pendulum_data, tmp_path, capsys):
    bindings = ["train.checkpoints_to_keep = 0"]
    assert tiny_runs.train(tmp_path / "run", pendulum_data, bindings=bindings) == 2
    assert (
        "train.checkpoints_to_keep is 0; it must be an integer of 1 or more."
        in capsys.readouterr().err
    )
    assert not (tmp_path / "run").exists()


def test_too_many_open_files_are_no_damage(directory):
    before = read_files(directory)
    code = (
        "import os, resource, sys, tensorflow as tf\n"
        "from fbrc_agent.training import checkpoints\n"
        "limit = len(os.listdir('/proc/self/fd')) - 1 \n"
        "resource.setrlimit(resource.RLIMIT_NOFILE, (limit, limit))\n"
        "checkpoints.newest_complete(sys.argv[1])\n"
    )
    process = subprocess.run(
        [sys.executable, "-c", code, str(directory)], capture_output=True, text=True
    )
    assert "Too many open files" in process.stderr
    assert "is used instead" not in process.stderr
    assert read_files(directory) == before
