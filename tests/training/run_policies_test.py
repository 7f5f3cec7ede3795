"""The policies that a run leaves while it trains, and their model cards."""

import json
import os
import shutil

import numpy as np
import pytest
import tensorflow as tf

from fbrc_agent.policies import model_card, policy_versions, serving_requests
from fbrc_agent.training import run_policies
from tests.helpers import tiny_runs


def record(step, value):
    return {"stage": "fbrc", "step": step, "return_mean": value}


@pytest.mark.parametrize(
    ("values", "step"),
    [
        ([-3.0, -1.0, -2.0], 20),
        ([-1.0, -1.0], 10),
        (["nan", -5.0], 20),
        ([], None),
        (["nan"], None),
    ],
)
def test_best_is_the_first_with_the_greatest_return(values, step):
    records = [record(10 * (i + 1), value) for i, value in enumerate(values)]
    lines_of_losses = [{"stage": "fbrc", "step": 5, "critic_loss": 1.0}]
    assert run_policies.best(lines_of_losses + records, []) == step


@pytest.fixture(scope="module")
def run(tmp_path_factory, pendulum_data):
    """A run of 50 updates, evaluated and exported every 10, of which two policies are kept."""
    root_dir = tmp_path_factory.mktemp("run_policies") / "run"
    sizes = {"STEPS": 50, "train.policies_to_keep": 2}
    assert tiny_runs.train(root_dir, pendulum_data, **sizes) == 0
    return root_dir


def returns(run):
    lines = [line for line in tiny_runs.read_lines(run) if line["stage"] == "fbrc"]
    return {line["step"]: line["return_mean"] for line in lines if "returns" in line}


def test_the_last_policies_are_kept(run):
    assert policy_versions.versions(str(run / "policies/greedy")) == [40, 50]


def test_the_best_policies_are_kept(run):
    """The steps that were the best so far, the last two of them."""
    found = returns(run)
    assert list(found) == [10, 20, 30, 40, 50]
    records = [s for s in found if all(found[s] > found[t] for t in found if t < s)]
    assert policy_versions.versions(str(run / "policies/best")) == records[-2:]
    result = json.loads((run / "result.json").read_text())
    assert result["policy"] == "policies/greedy/50"
    assert result["best_policy"] == f"policies/best/{records[-1]}"


def test_a_policy_is_the_one_that_was_evaluated(run, capsys):
    """Evaluated as the driver does, 2 episodes from the seed 1000 on, it has the logged returns."""
    for name in ("greedy", "best"):
        directory = policy_versions.newest(str(run / "policies" / name))
        card = json.loads((run / directory / "policy.json").read_text())
        arguments = ("evaluate", "--policy", run / "policies" / name, "--episodes", 2)
        assert tiny_runs.run_command(*arguments, "--seed", 1000) == 0
        mean = float(capsys.readouterr().out.splitlines()[-1].split()[2])
        assert mean == pytest.approx(card["scores"]["return_mean"], abs=0.06)
        assert card["scores"]["return_mean"] == returns(run)[card["steps"]["fbrc"]]


def test_the_model_card_tells_where_the_policy_comes_from(run, pendulum_data):
    card = json.loads((run / "policies/greedy/50/policy.json").read_text())
    assert (card["task"], card["seed"]) == ("Pendulum-v1", 0)
    assert card["steps"] == {"behavior": 20, "fbrc": 50}
    assert card["data"]["source"] == str(pendulum_data)
    assert len(card["data"]["checksum"]) == 64
    assert len(card["scores"]["returns"]) == len(card["scores"]["lengths"]) == 2
    assert card["action"] == {
        "name": "action",
        "dtype": "float32",
        "shape": [1],
        "minimum": [-2.0],
        "maximum": [2.0],
    }
    assert card["observation"]["shape"] == [3]
    low, high = card["observation"]["minimum"], card["observation"]["maximum"]
    assert all(-1 <= a < b <= 1 for a, b in zip(low[:2], high[:2])) and -8 <= low[2] < high[2] <= 8
    assert card["normalization"] is None
    assert card["signatures"]["sample"]["inputs"]["seed"] == {"dtype": "int64", "shape": [None]}
    assert card["versions"]["tensorflow"] == tf.__version__
    assert "git_revision" in card


def test_the_readme_shows_every_episode_and_requests_that_the_model_takes(run):
    directory = run / "policies/greedy/50"
    page = (directory / "README.md").read_text()
    card = json.loads((directory / "policy.json").read_text())
    assert all(f"{value:.2f} |" in page for value in card["scores"]["returns"])
    bodies = [line.split("'")[1] for line in page.splitlines() if line.startswith("curl")]
    assert len(bodies) == len(card["signatures"]) == 2
    model = tf.saved_model.load(str(directory))
    for body in map(json.loads, bodies):
        name = body.get("signature_name", "serving_default")
        signature = serving_requests.signatures(str(directory))[name]
        inputs = {
            key: tf.constant(value, tf.as_dtype(signature.inputs[key].dtype))
            for key, value in body["inputs"].items()
        }
        assert np.isfinite(model.signatures[name](**inputs)["action"]).all()


def test_a_complete_run_exports_again_what_is_missing(run, pendulum_data):
    """And nothing else: the others keep their bytes and times."""
    before = tiny_runs.read_files(run / "policies")
    shutil.rmtree(run / "policies/greedy/50")
    sizes = {"STEPS": 50, "train.policies_to_keep": 2}
    assert tiny_runs.train(run, pendulum_data, **sizes) == 0
    assert policy_versions.versions(str(run / "policies/greedy")) == [40, 50]
    after = tiny_runs.read_files(run / "policies")
    assert all(after[path] == before[path] for path in before if "greedy/50" not in str(path))


# What policy.json says is never followed.


def test_evaluate_imports_no_module_that_the_card_names(run, tmp_path, capsys):
    """An id such as 'module:Env-v0' would have Gymnasium import a module."""
    directory = tmp_path / "model" / "1"
    shutil.copytree(run / "policies/greedy/50", directory)
    marker = tmp_path / "executed"
    (tmp_path / "evil.py").write_text(f"open({str(marker)!r}, 'w')")
    card = json.loads((directory / "policy.json").read_text())
    refusals = {
        "evil:Env-v0": "which imports a module; give --task evil:Env-v0 if you trust it",
        "../../etc/passwd": "cannot make the environment '../../etc/passwd'",
        f"embedded:../../{tmp_path}": "which imports a module",
    }
    for task, refusal in refusals.items():
        (directory / "policy.json").write_text(json.dumps({**card, "task": task}))
        assert tiny_runs.run_command("evaluate", "--policy", directory.parent) == 2
        assert refusal in capsys.readouterr().err
    assert not marker.exists()


def test_paths_in_the_card_are_not_opened(run, tmp_path, capsys):
    """Named pipes: a process that opened one would wait forever."""
    directory = tmp_path / "1"
    shutil.copytree(run / "policies/greedy/50", directory)
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    card = json.loads((directory / "policy.json").read_text())
    card["data"]["source"] = card["name"] = card["files"] = card["model"] = str(pipe)
    (directory / "policy.json").write_text(json.dumps(card))
    assert tiny_runs.run_command("evaluate", "--policy", directory, "--episodes", 1) == 0
    assert len(capsys.readouterr().out.splitlines()) == 3


def test_a_policy_without_card_names_no_task(tmp_path):
    assert model_card.read_task(str(tmp_path)) == (None, None)
