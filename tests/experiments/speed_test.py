"""The time of behavior policy and F-BRC against CQL: what is made of the measured rates."""

import json
import re

import pytest

from fbrc_agent.experiments import speed
from tests.helpers import tiny_runs


def test_hours_are_those_of_a_million_updates():
    rounds = {
        "behavior": [400.0, 500.0, 500.0],
        "fbrc": [100.0, 125.0, 100.0],
        "cql": [20.0, 25.0, 50.0],
    }
    numbers = speed.extrapolate(rounds)
    # 10^6 / 500 / 3600, 10^6 / 100 / 3600 and 10^6 / 25 / 3600.
    hours = {name: entry["median"] for name, entry in numbers["hours"].items()}
    assert hours == pytest.approx({"behavior": 5 / 9, "fbrc": 25 / 9, "cql": 100 / 9})
    # By round: (1/20) / (1/400 + 1/100) = 4, (1/25) / (1/500 + 1/125) = 4, 5/3.
    assert numbers["cql_to_fbrc"]["median"] == pytest.approx(4.0)
    assert numbers["cql_to_fbrc"]["quartiles"] == pytest.approx([(4 + 5 / 3) / 2, 4.0])


@pytest.mark.parametrize(
    "binding, message",
    [
        ("speed.rounds = 0", "speed.rounds is 0; it must be an integer of 1 or more"),
        ("speed.seconds = -1", "speed.seconds is -1; it must be a finite number above 0"),
    ],
)
def test_a_measurement_that_cannot_be_is_refused(tmp_path, capsys, binding, message):
    arguments = ["reproduce", "speed", "--root_dir", tmp_path, "--gin_bindings", binding]
    assert tiny_runs.run_command(*arguments) == 2
    assert message in capsys.readouterr().err


def test_report_says_that_the_hours_are_extrapolated(tmp_path):
    bindings = [
        "speed.rounds = 1",
        "speed.seconds = 0.05",
        "MixtureBehaviorNetwork.fc_layer_params = (8,)",
        "create_offset_network.fc_layer_params = (8,)",
        "create_actor_network.fc_layer_params = (8,)",
    ]
    arguments = ["--quick", "--root_dir", tmp_path, "--gin_bindings", *bindings]
    assert tiny_runs.run_command("reproduce", "speed", *arguments) == 0
    numbers = json.loads((tmp_path / "speed.json").read_text())
    (rate,) = numbers["rounds"]["cql"]
    hours = numbers["hours"]["cql"]["median"]
    assert hours == pytest.approx(1e6 / rate / 3600)
    page = re.sub(" +", " ", (tmp_path / "README.md").read_text())  # Columns are aligned.
    assert f"| CQL | {rate:.1f} ({rate:.1f} to {rate:.1f}) | {hours:.2f} " in page
    assert "The hours are extrapolated" in page
