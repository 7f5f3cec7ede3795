"""TensorFlow Serving's layout: numbers, what a watching server sees, and pruning."""

import os
import pathlib
import subprocess
import sys

import pytest

from fbrc_agent.policies import policy_versions
from fbrc_agent.utils.errors import InputError


def write(path):
    os.makedirs(path)
    pathlib.Path(path, "saved_model.pb").write_text(os.path.basename(path))


def names(directory):
    return sorted(os.listdir(directory))


def test_versions_count_on_from_the_newest(tmp_path):
    paths = [policy_versions.publish(str(tmp_path), v, write) for v in (None, 7, None, 0)]
    assert [os.path.basename(path) for path in paths] == ["1", "7", "8", "0"]
    assert policy_versions.versions(str(tmp_path)) == [0, 1, 7, 8]


def test_what_is_not_a_number_is_not_a_version(tmp_path):
    for name in ("12.34.tmp", "next.5.tmp", "model", "-1", "1e3"):
        (tmp_path / name).mkdir()
    assert policy_versions.versions(str(tmp_path)) == []
    assert policy_versions.newest(str(tmp_path)) == str(tmp_path)


def test_newest_is_by_number(tmp_path):
    for version in (9, 10, 2):
        policy_versions.publish(str(tmp_path), version, write)
    assert policy_versions.newest(str(tmp_path)) == str(tmp_path / "10")
    assert policy_versions.newest(str(tmp_path / "9")) == str(tmp_path / "9")


def test_a_version_is_not_there_before_it_is_complete(tmp_path):
    def look(path):
        write(path)
        assert policy_versions.versions(str(tmp_path)) == []
        assert os.path.dirname(path) == str(tmp_path)

    policy_versions.publish(str(tmp_path), 3, look)
    assert names(tmp_path) == ["3"]


def test_a_write_that_fails_leaves_nothing(tmp_path):
    def fail(path):
        write(path)
        raise OSError("no room")

    with pytest.raises(OSError, match="no room"):
        policy_versions.publish(str(tmp_path), None, fail)
    assert names(tmp_path) == []


@pytest.mark.parametrize(
    ("directory", "version", "sentence"),
    [
        ("m", 4, "m/4 exists; give the export a version of its own"),
        (
            "m/4",
            None,
            "m/4 ends in the number of a version; give the directory of the model, .*m, ",
        ),
        ("m", -1, "The version of .*m is -1; it must be an integer of 0 or more"),
    ],
)
def test_refusals(tmp_path, directory, version, sentence):
    policy_versions.publish(str(tmp_path / "m"), 4, write)
    with pytest.raises(InputError, match=sentence):
        policy_versions.publish(str(tmp_path / directory), version, write)
    assert names(tmp_path / "m") == ["4"]


def test_processes_that_publish_at_once_get_versions_of_their_own(tmp_path):
    program = """
import os, sys, time
from fbrc_agent.policies import policy_versions
def write(path):
    os.makedirs(path)
    open(os.path.join(path, "x"), "w").close()
    while not os.path.exists(sys.argv[2]):
        time.sleep(0.01)
for _ in range(5):
    policy_versions.publish(sys.argv[1], None, write)
"""
    go = tmp_path / "go"
    command = [sys.executable, "-c", program, str(tmp_path / "m"), str(go)]
    processes = [subprocess.Popen(command) for _ in range(4)]
    go.touch()
    assert [process.wait(timeout=60) for process in processes] == [0] * 4
    assert policy_versions.versions(str(tmp_path / "m")) == list(range(1, 21))
    assert len(names(tmp_path / "m")) == 20


def test_prune_keeps_the_newest(tmp_path):
    for version in (1, 2, 10, 30):
        policy_versions.publish(str(tmp_path), version, write)
    (tmp_path / "notes").mkdir()
    policy_versions.prune(str(tmp_path), 2)
    assert names(tmp_path) == ["10", "30", "notes"]
    policy_versions.prune(str(tmp_path / "none"), 2)
