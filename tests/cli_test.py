"""The command line: a mistake costs one sentence and exit code 2, and leaves nothing behind."""

import h5py
import pytest

from fbrc_agent import cli
from tests.helpers import tiny_runs


def refusal(capsys, *arguments):
    """Runs a command that must fail; returns its sentence."""
    assert tiny_runs.run_command(*arguments) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.count("\n") == 1, captured.err
    return captured.err.strip()


def train_refusal(capsys, tmp_path, data, **options):
    """Runs `train`, which must fail and leave no directory; returns its sentence."""
    before = sorted(tmp_path.rglob("*"))
    error = refusal(capsys, *tiny_runs.train_arguments(tmp_path / "run", data, **options))
    assert sorted(tmp_path.rglob("*")) == before
    assert error.startswith("train: ")
    return error


# Data.


def test_missing_data_file(tmp_path, capsys):
    path = tmp_path / "none.hdf5"
    error = train_refusal(capsys, tmp_path, path)
    assert error.startswith(
        f"train: {path}: there is no such file; the data source must be the path"
    )


def test_truncated_data_file(tmp_path, pendulum_data, capsys):
    path = tmp_path / "cut.hdf5"
    path.write_bytes(pendulum_data.read_bytes()[:-1000])
    assert f"{path}: cannot be read as HDF5" in train_refusal(capsys, tmp_path, path)


def test_data_file_with_a_wrong_key(tmp_path, pendulum_data, capsys):
    path = tmp_path / "wrong.hdf5"
    path.write_bytes(pendulum_data.read_bytes())
    with h5py.File(path, "a") as file:
        file.move("rewards", "reward")
    assert f"{path}: has no key 'rewards'" in train_refusal(capsys, tmp_path, path)


def test_unknown_task(tmp_path, pendulum_data, capsys):
    error = train_refusal(capsys, tmp_path, pendulum_data, TASK="Pendulum-v9")
    assert "cannot make the environment 'Pendulum-v9': " in error
    assert "did you mean Pendulum-v1" in error


def test_data_that_cannot_be_downloaded(tmp_path, capsys, monkeypatch):
    # Port 9 of this machine: the download fails at once, with and without a network.
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.delenv("NO_PROXY", raising=False)
    cache = tmp_path / "cache"
    cache.mkdir()
    monkeypatch.setenv("FBRC_DATA_DIR", str(cache))
    options = {"TASK": "hopper-medium-v2", "DATA": None}
    error = train_refusal(capsys, tmp_path, None, **options)
    assert "Cannot download http" in error
    assert "pass DATA=path" in error


# gin.


def test_missing_gin_file(tmp_path, pendulum_data, capsys):
    error = train_refusal(capsys, tmp_path, pendulum_data, gin_file="nowhere.gin")
    assert error.startswith("train: gin configuration (nowhere.gin): ")
    assert "Unable to open file: nowhere.gin" in error


@pytest.mark.parametrize(
    "binding, message",
    [
        ("FbrcAgnt.gamma = 0.9", "No configurable matching 'FbrcAgnt'"),
        ("FbrcAgent.gama = 0.9", "'gama'"),
        ("FbrcAgent.gamma = ", "in the binding 'FbrcAgent.gamma = '."),
        ("FbrcAgent.gamma = 0.9)", "Expected newline in the binding 'FbrcAgent.gamma = 0.9)'."),
        ("FbrcAgent.gamma", "in the binding 'FbrcAgent.gamma'."),
        ("FbrcAgent.gamma = nine", "in the binding 'FbrcAgent.gamma = nine'."),
        ("FbrcAgent.gamma = %NINE", "No bindings specified for 'NINE/gin.macro'"),
        ("FbrcAgent.gamma = @nine()", "No configurable matching reference '@nine()'"),
        ("include 'nowhere.gin'", "Unable to open file: nowhere.gin"),
    ],
)
def test_mistake_in_a_binding(tmp_path, pendulum_data, capsys, binding, message):
    error = train_refusal(capsys, tmp_path, pendulum_data, bindings=[binding])
    assert error.startswith("train: gin configuration (fbrc.gin): ")
    assert message in error


def test_mistake_in_a_gin_file(tmp_path, pendulum_data, capsys):
    path = tmp_path / "mine.gin"
    path.write_text("include 'fbrc.gin'\nFbrcAgent.gamma = 0.9)\n")
    error = train_refusal(capsys, tmp_path, pendulum_data, gin_file=path)
    assert error.endswith(f"Expected newline in {path}, line 2.")


# Places.


def test_file_in_place_of_the_directory(tmp_path, pendulum_data, capsys):
    path = tmp_path / "run"
    path.write_text("mine")
    error = refusal(capsys, *tiny_runs.train_arguments(path, pendulum_data))
    assert error == f"train: {path}: File exists; give another path."
    assert path.read_text() == "mine"


def test_directory_below_a_file(tmp_path, pendulum_data, capsys):
    (tmp_path / "file").write_text("mine")
    error = refusal(capsys, *tiny_runs.train_arguments(tmp_path / "file" / "run", pendulum_data))
    assert "Not a directory" in error
    assert str(tmp_path / "file") in error


def test_export_of_no_run(tmp_path, capsys):
    arguments = ("export", "--root_dir", tmp_path / "none", "--output", tmp_path / "1")
    assert "none holds no run" in refusal(capsys, *arguments)
    assert list(tmp_path.iterdir()) == []


def test_export_to_an_existing_version(tmp_path, tiny_run, capsys):
    (tmp_path / "model/3").mkdir(parents=True)
    arguments = ("--root_dir", tiny_run, "--output", tmp_path / "model", "--version", 3)
    error = refusal(capsys, "export", *arguments)
    assert error == f"export: {tmp_path}/model/3 exists; give the export a version of its own."
    assert list((tmp_path / "model").rglob("*")) == [tmp_path / "model/3"]


def test_evaluate_without_a_policy(tmp_path, capsys):
    arguments = ("evaluate", "--policy", tmp_path, "--task", "Pendulum-v1")
    assert "is not a SavedModel directory" in refusal(capsys, *arguments)


def test_evaluate_task_without_an_environment(tiny_run, capsys):
    policy = tiny_run / "policies/greedy"
    arguments = ("evaluate", "--policy", policy, "--task", "pen-human-v1")
    error = refusal(capsys, *arguments)
    assert error == (
        "evaluate: Task pen-human-v1: there is no environment to evaluate it in; give --task."
    )


def test_collect_without_a_gin_file(tmp_path, capsys):
    error = refusal(capsys, "collect", "--output", tmp_path / "x.hdf5")
    assert error == "collect: --gin_file is needed, for example collect/pendulum.gin."


def test_collect_into_a_missing_directory(tmp_path, capsys):
    output = tmp_path / "none" / "x.hdf5"
    arguments = ("collect", "--output", output, "--gin_file", "collect/pendulum.gin")
    assert f"{output}: cannot be written" in refusal(capsys, *arguments)


def test_plot_into_a_missing_directory(tmp_path, tiny_run, capsys):
    error = refusal(capsys, "plot", tiny_run, "--output", tmp_path / "none" / "x.png")
    assert "No such file or directory" in error
    assert str(tmp_path / "none" / "x.png") in error


# What works.


def test_evaluate_prints_each_episode(tiny_run, capsys):
    arguments = ["evaluate", "--policy", tiny_run / "policies/greedy/20", "--task", "Pendulum-v1"]
    assert tiny_runs.run_command(*arguments, "--episodes", 2) == 0
    rows = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert [row[:2] for row in rows[1:]] == [["0", "200"], ["1", "200"], ["mean", "200"]]


def test_evaluation_of_the_export_is_that_of_the_run(tiny_run, capsys):
    """The driver evaluates from the seed 1000 on; the last evaluation is that of the export."""
    arguments = ["evaluate", "--policy", tiny_run / "policies/greedy"]
    assert tiny_runs.run_command(*arguments, "--episodes", 2, "--seed", 1000) == 0
    printed = [float(line.split()[2]) for line in capsys.readouterr().out.splitlines()[1:3]]
    (*_, last) = [line for line in tiny_runs.read_lines(tiny_run) if "returns" in line]
    assert printed == pytest.approx(last["returns"], abs=0.1)


def test_debug_shows_the_traceback(tmp_path, capsys):
    arguments = ["export", "--debug", "--root_dir", tmp_path, "--output", tmp_path / "1"]
    assert tiny_runs.run_command(*arguments) == 2
    lines = capsys.readouterr().err.splitlines()
    assert lines[0].startswith("Traceback")
    assert lines[-1].startswith("export: ")


@pytest.mark.parametrize("arguments", [[], ["trian"]])
def test_unknown_command(capsys, arguments):
    assert cli.main(arguments) == 2
    assert capsys.readouterr().err.startswith("usage: ")


def test_default_directory_is_named_after_the_gin_file(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs").write_text("in the way")
    (tmp_path / "mine.gin").write_text("include 'quickstart.gin'\n")
    assert "runs/mine" in refusal(capsys, "train", "--gin_file", "mine.gin")
