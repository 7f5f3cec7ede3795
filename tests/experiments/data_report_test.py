"""`bin/data`: counts and statistics by hand, warnings, and a picture that is not empty."""

import matplotlib.image
import numpy as np
import pytest

from fbrc_agent.datasets import hdf5, offline_data
from fbrc_agent.experiments import data_report
from tests.helpers import tiny_runs


def test_description_has_counts_statistics_and_warnings():
    data = offline_data.OfflineData.from_arrays(
        observations=[[0.0, 5000.0], [1.0, 5000.0], [2.0, 5000.0], [3.0, 5000.0]],
        actions=[[0.5], [-0.5], [0.25], [0.0]],
        rewards=[1.0, 2.0, 4.0, 8.0],
        next_observations=np.ones([4, 2]),
        discounts=[1, 0, 1, 1],
        episode_starts=[0, 2],
        source="mine",
    )
    text = data_report.describe(data)
    head, quantities, observations, actions, bounds, warnings = text.split("\n\n")
    assert head == "mine: 4 transitions of 4 rows, 2 episodes, 1 with a terminal end, 1 cut"
    rows = {line.split()[0]: line.split()[1:] for line in quantities.splitlines()[1:]}
    assert rows["return"][0] == "3" and rows["return"][2] == "7.5" and rows["return"][4] == "12"
    assert rows["length"] == ["2"] * 5
    assert observations.splitlines()[2].split() == ["1"] + ["5000"] * 5
    assert actions.splitlines()[1].split()[1:6:4] == ["-0.5", "0.5"]
    assert bounds == "bounds of the actions: [-1.0] to [1.0]"
    assert "is 5000 in every row" in warnings and warnings.startswith("warning: ")


def test_command_has_the_warnings_once(tmp_path, capsys, caplog):
    source, size = tmp_path / "constant.hdf5", 20
    actions, ends = np.linspace(-0.9, 0.9, size)[:, None], np.zeros(size, bool)
    hdf5.save_d4rl_hdf5(str(source), actions, actions, np.ones(size), ends, ends, {})
    assert tiny_runs.run_command("data", source, "--output", tmp_path / "picture.png") == 0
    assert "warning: rewards is 1 in every row" in capsys.readouterr().out
    assert caplog.records == []


def test_command_refuses_a_place_that_is_not_there(tmp_path, pendulum_data, capsys):
    arguments = ["data", pendulum_data, "--output", tmp_path / "missing" / "picture.png"]
    assert tiny_runs.run_command(*arguments) == 2
    captured = capsys.readouterr()
    assert captured.out == "" and "picture.png: cannot be written" in captured.err


def test_command_describes_what_a_run_is_trained_on(tmp_path, pendulum_data, capsys):
    picture = tmp_path / "picture.png"
    arguments = ["data", pendulum_data, "--output", picture]
    assert tiny_runs.run_command(*arguments) == 0
    raw = capsys.readouterr().out
    assert raw.startswith(f"{pendulum_data}: 597 transitions of 600 rows, 3 episodes, 0 with")
    assert raw.splitlines()[-1] == f"picture: {picture}"
    image = matplotlib.image.imread(picture)
    assert image.shape[:2] == (900, 1600) and len(np.unique(image.reshape(-1, 4), axis=0)) > 50
    binding = "preprocess.normalize_observations = True"
    assert tiny_runs.run_command(*arguments, "--gin_bindings", binding) == 0
    normalized = capsys.readouterr().out
    assert normalized.split("observations")[1] != raw.split("observations")[1]


@pytest.mark.parametrize(
    "source, name",
    [("logs/*", "logs.png"), ("a/b.csv", "b.png"), ("embedded:x", "embedded_x.png")],
)
def test_default_picture_is_named_after_the_source(source, name):
    assert data_report.default_picture(source) == name
