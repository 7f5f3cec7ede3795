"""The frame of `bin/reproduce`: names, and what an experiment leaves on disk."""

import json
import subprocess
import sys

import matplotlib.image
import pytest
import tensorflow as tf
from matplotlib.figure import Figure

from fbrc_agent import experiments
from fbrc_agent.experiments import report
from fbrc_agent.utils.errors import InputError
from tests.helpers import tiny_runs


def make_report(number=1.5):
    figure = Figure(figsize=(2.0, 1.0), dpi=50)
    figure.add_subplot().plot([0.0, 1.0], [0.0, 1.0])
    return report.Report("bandit", "Of one arm", {"mean": number}, figure, "It is 1.5.")


def test_names_are_known_without_tensorflow():
    code = "import sys; from fbrc_agent import experiments; sys.exit('tensorflow' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_unknown_experiment_is_refused_with_the_names(capsys, tmp_path):
    root_dir = tmp_path / "none"
    assert tiny_runs.run_command("reproduce", "bandits", "--root_dir", str(root_dir)) == 2
    assert capsys.readouterr().err == (
        "reproduce: There is no experiment 'bandits'; it must be one of bandit, lambda, norms, "
        "ablation, density, speed.\n"
    )
    assert not root_dir.exists()
    with pytest.raises(InputError):
        experiments.get("")


@pytest.mark.parametrize("name", experiments.EXPERIMENTS)
def test_every_name_has_its_function(name):
    assert experiments.get(name).__name__ == f"run_{name}"


def test_an_experiment_is_run_in_its_directory_and_reported(tmp_path, monkeypatch, capsys):
    asked = []

    def function(root_dir, quick):
        asked.append((root_dir, quick))
        return make_report()

    monkeypatch.setattr(experiments, "get", lambda name: function)
    root_dir = str(tmp_path / "new" / "run")
    assert tiny_runs.run_command("reproduce", "bandit", "--quick", "--root_dir", root_dir) == 0
    assert asked == [(root_dir, True)]
    names = ["bandit.json", "bandit.png", "README.md"]
    assert capsys.readouterr().out.splitlines() == [
        *["Of one arm", "", "It is 1.5.", ""],
        *[f"{root_dir}/{name}" for name in names],
    ]
    assert sorted(path.name for path in (tmp_path / "new" / "run").iterdir()) == sorted(names)


def test_report_holds_the_numbers_and_the_picture(tmp_path):
    make_report().write(str(tmp_path), ["bandit"])
    assert json.loads((tmp_path / "bandit.json").read_text()) == {"mean": 1.5}
    image = matplotlib.image.imread(tmp_path / "bandit.png")
    assert image.shape == (50, 100, 4)
    assert image[..., :3].std() > 0.05


@pytest.mark.parametrize(
    "arguments, command, setting",
    [
        (["bandit", "--quick"], "bandit --quick", "the quick setting."),
        (["bandit"], "bandit", "the full setting."),
        (
            ["lambda", "--root_dir", "a b", "--gin_bindings", "x = {'y': 1}", "z = $w", "v=1"],
            """lambda --root_dir "a b" --gin_bindings "x = {'y': 1}" 'z = $w' v=1""",
            "the full setting, with the values of the command in place.",
        ),
    ],
)
def test_page_names_command_setting_and_versions(tmp_path, arguments, command, setting):
    make_report().write(str(tmp_path), arguments)
    page = (tmp_path / "README.md").read_text()
    assert page.startswith("# Of one arm\n\nIt is 1.5.\n\n![Of one arm](bandit.png)\n")
    assert f"```\nbin/reproduce {command}\n```" in page
    assert f"This is {setting}" in page
    assert f"tensorflow {tf.__version__}" in page


def test_report_with_nan_is_refused_and_leaves_the_old_one(tmp_path):
    make_report().write(str(tmp_path), ["bandit"])
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    with pytest.raises(ValueError, match="not JSON compliant"):
        make_report(number=float("nan")).write(str(tmp_path), ["bandit"])
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before
