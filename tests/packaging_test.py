"""What is installed and how the launchers start."""

import configparser
import importlib
import os
import pathlib
import re
import shutil
import stat
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).resolve().parent.parent
COMMANDS = ["train", "export", "evaluate", "collect", "plot", "benchmark", "reproduce", "data"]
LAUNCHERS = [*COMMANDS, "test"]
HEAVY = ["tensorflow", "tf_agents", "gym", "gymnasium", "d4rl", "mujoco"]


def read_setup_cfg():
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg")
    return config


def console_scripts():
    lines = read_setup_cfg()["options.entry_points"]["console_scripts"].split("\n")
    return dict(re.split(r"\s*=\s*", line, maxsplit=1) for line in lines if line)


def write_stub_python(path, version):
    """Writes an interpreter that answers every question with its version."""
    path.write_text(f"#!/bin/sh\necho {version}\necho {path}\n")
    path.chmod(0o755)
    return path


def launch(name, fbrc_python, cwd):
    environment = dict(os.environ, FBRC_PYTHON=str(fbrc_python))
    return subprocess.run(
        [ROOT / "bin" / name], env=environment, cwd=cwd, capture_output=True, text=True, timeout=60
    )


@pytest.mark.parametrize("name", LAUNCHERS)
@pytest.mark.parametrize("version", ["3.8.18", "3.14.0"])
def test_launcher_refuses_unsupported_python(tmp_path, name, version):
    stub = write_stub_python(tmp_path / "python", version)
    result = launch(name, stub, tmp_path)
    assert result.returncode == 2
    assert result.stdout == ""
    assert result.stderr == (
        f"fbrc_agent needs Python 3.9 to 3.13, but {stub} is Python {version}: "
        "set FBRC_PYTHON to an interpreter of one of these versions.\n"
    )


def test_launcher_names_an_interpreter_that_does_not_run(tmp_path):
    missing = tmp_path / "no_python"
    result = launch("train", missing, tmp_path)
    assert result.returncode == 2
    assert result.stderr == (
        f"fbrc_agent needs Python 3.9 to 3.13, but none of these runs: {missing}; "
        "set FBRC_PYTHON to an interpreter of one of these versions.\n"
    )


def launch_copy(directory, tools):
    """Runs bin/train in a copy that has no .venv yet, with `tools` and a few commands on PATH."""
    (directory / "bin").mkdir()
    for name in ("bin/_setup", "bin/train", "requirements.txt", "setup.cfg"):
        shutil.copy(ROOT / name, directory / name)
    for name in ("bash", "cat", "cksum", "dirname", "env", "mktemp", "readlink", "rm"):
        (tools / name).symlink_to(shutil.which(name))
    environment = {k: v for k, v in os.environ.items() if k != "FBRC_PYTHON"}
    environment.update(PATH=str(tools), TMPDIR=str(directory))
    return subprocess.run(
        [directory / "bin" / "train"], env=environment, capture_output=True, text=True, timeout=60
    )


def test_the_newest_supported_python_is_taken(tmp_path):
    tools = tmp_path / "tools"
    tools.mkdir()
    for minor in (9, 11, 13, 14):
        write_stub_python(tools / f"python3.{minor}", f"3.{minor}.0")
    write_stub_python(tools / "python3", "3.14.0")
    result = launch_copy(tmp_path, tools)
    assert result.returncode == 1  # The stub makes no .venv.
    assert f"into {tmp_path}/.venv with Python 3.13.0 (once" in result.stderr


def test_uv_brings_a_python_where_none_is_supported(tmp_path):
    tools = tmp_path / "tools"
    tools.mkdir()
    write_stub_python(tools / "python3", "3.8.18")
    (tools / "uv").write_text(f'#!/bin/sh\necho "$@" >>{tmp_path}/asked; test $1 != pip\n')
    (tools / "uv").chmod(0o755)
    result = launch_copy(tmp_path, tools)
    assert result.returncode == 1
    assert "with Python 3.13 (once" in result.stderr
    wanted = f"venv --no-project --python 3.13 {tmp_path}/.venv"
    assert wanted in (tmp_path / "asked").read_text().splitlines()


def test_without_a_supported_python_or_uv_one_sentence_says_so(tmp_path):
    tools = tmp_path / "tools"
    tools.mkdir()
    write_stub_python(tools / "python3", "3.8.18")
    result = launch_copy(tmp_path, tools)
    assert (result.returncode, result.stderr) == (
        2,
        "fbrc_agent needs Python 3.9 to 3.13, but python3 is Python 3.8.18: "
        "set FBRC_PYTHON to an interpreter of one of these versions.\n",
    )


@pytest.mark.parametrize("name", [*LAUNCHERS, "audit"])
def test_launcher_is_executable(name):
    assert (ROOT / "bin" / name).stat().st_mode & stat.S_IXUSR


def test_import_is_light_and_silent():
    code = f"import fbrc_agent, sys; sys.exit(' '.join({set(HEAVY)} & set(sys.modules)) or 0)"
    result = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert (result.returncode, result.stdout, result.stderr) == (0, "", "")


@pytest.mark.parametrize("name", COMMANDS)
def test_console_script_is_callable(name):
    module, function = console_scripts()[f"fbrc-{name}"].split(":")
    assert module == "fbrc_agent.cli"
    assert callable(getattr(importlib.import_module(module), function))


def test_there_is_no_console_script_without_a_launcher():
    """But `fbrc`, which has the others as subcommands."""
    assert sorted(console_scripts()) == sorted(["fbrc", *(f"fbrc-{name}" for name in COMMANDS)])


def test_gin_folder_is_no_package():
    # It would be imported instead of gin-config from the repository's root.
    assert (ROOT / "gin").is_dir()
    assert list((ROOT / "gin").rglob("__init__.py")) == []


def test_every_gin_folder_is_installed():
    installed = read_setup_cfg()["options.data_files"]
    for file in (ROOT / "gin").rglob("*.gin"):
        folder = file.parent.relative_to(ROOT).as_posix()
        assert installed[f"share/fbrc_agent/{folder}"] == f"{folder}/*.gin"


def test_requirements_name_no_registry():
    requirements = (ROOT / "requirements.txt").read_text()
    assert re.findall(r"\S*(?:://|file:)\S*", requirements) == []
    assert re.findall(r"^-.*", requirements, flags=re.MULTILINE) == []


def test_every_requirement_is_pinned_with_hashes():
    text = (ROOT / "requirements.txt").read_text().replace("\\\n", " ")
    lines = [line for line in text.splitlines() if line and not line.lstrip().startswith("#")]
    assert any(line.startswith("tensorflow==2.15.") for line in lines)
    for line in lines:
        assert re.match(r"[a-z0-9-]+==[0-9a-z.]+ .*--hash=sha256:[0-9a-f]{64}", line), line
