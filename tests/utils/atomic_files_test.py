"""Files are there whole or not at all."""

import os
import subprocess
import sys

import pytest

from fbrc_agent.utils import atomic_files
from fbrc_agent.utils.errors import InputError


def test_file_is_there_once_the_block_has_ended(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"before")
    with atomic_files.replacing(str(path)) as temporary:
        with open(temporary, "wb") as file:
            file.write(b"after")
        assert path.read_bytes() == b"before"
    assert os.listdir(tmp_path) == ["file"] and path.read_bytes() == b"after"


def test_file_stays_as_it_was_if_the_block_raises(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"before")
    with pytest.raises(RuntimeError), atomic_files.replacing(str(path)) as temporary:
        with open(temporary, "wb") as file:
            file.write(b"half")
        raise RuntimeError
    assert os.listdir(tmp_path) == ["file"] and path.read_bytes() == b"before"


def test_a_missing_directory_is_named(tmp_path):
    path = tmp_path / "missing" / "file"
    with pytest.raises(InputError, match=f"{path}: cannot be written .* {path.parent}[)]"):
        atomic_files.write_text(str(path), "")


def test_two_writers_do_not_share_a_temporary_file(tmp_path):
    path = str(tmp_path / "file")
    with atomic_files.replacing(path) as first, atomic_files.replacing(path) as second:
        for temporary in (first, second):
            with open(temporary, "xb") as file:
                file.write(temporary.encode())
    assert (tmp_path / "file").read_bytes() == first.encode()
    assert os.listdir(tmp_path) == ["file"]


def test_leftover_of_a_killed_writer_is_removed(tmp_path):
    program = (
        "import os, sys; from fbrc_agent.utils import atomic_files\n"
        "with atomic_files.replacing(sys.argv[1]) as temporary:\n"
        "    open(temporary, 'wb').close(); os.kill(os.getpid(), 9)"
    )
    subprocess.run([sys.executable, "-c", program, str(tmp_path / "file")], check=False)
    assert len(os.listdir(tmp_path)) == 1
    atomic_files.remove_leftovers(str(tmp_path))
    assert os.listdir(tmp_path) == []


def test_leftovers_of_dead_processes_are_removed(tmp_path):
    process = subprocess.Popen(["true"])
    process.wait()
    directory = tmp_path / "behavior" / f"fitted.{process.pid}.tmp"
    directory.mkdir(parents=True)
    (directory / "weights.index").write_bytes(b"half")
    (tmp_path / f"result.json.{process.pid}.tmp").write_bytes(b"half")
    (tmp_path / "result.json").write_bytes(b"complete")
    atomic_files.remove_leftovers(str(tmp_path))
    assert {str(p.relative_to(tmp_path)) for p in tmp_path.rglob("*")} == {
        "behavior",
        "result.json",
    }


def test_what_another_process_is_writing_is_left(tmp_path):
    path = tmp_path / f"result.json.{os.getppid()}.tmp"
    path.write_bytes(b"half")
    atomic_files.remove_leftovers(str(tmp_path))
    assert path.exists()


def test_directory_is_there_once_the_block_has_ended(tmp_path):
    path = tmp_path / "directory"
    path.mkdir()
    (path / "old").touch()
    with atomic_files.replacing_directory(str(path)) as temporary:
        with open(os.path.join(temporary, "new"), "wb"):
            pass
        assert os.listdir(path) == ["old"]
    assert os.listdir(path) == ["new"] and os.listdir(tmp_path) == ["directory"]


def test_directory_stays_as_it_was_if_the_block_raises(tmp_path):
    path = tmp_path / "directory"
    path.mkdir()
    (path / "old").touch()
    with pytest.raises(RuntimeError), atomic_files.replacing_directory(str(path)):
        raise RuntimeError
    assert os.listdir(path) == ["old"] and os.listdir(tmp_path) == ["directory"]


def test_a_full_disk_is_named():
    with pytest.raises(OSError, match="No space left on device: 'metrics'"):
        with atomic_files.named("metrics"), open("/dev/full", "w", encoding="utf-8") as file:
            file.write("text")
