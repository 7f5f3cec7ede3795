"""The contract of `tests/helpers/contract.py`, on the algorithms here and on that of the docs."""

import re

import pytest

from tests.helpers import contract, tiny_runs


def extract_files(page, directory):
    """Writes the files that a page shows, each block under its name in backquotes."""
    blocks = re.findall(r"^`([\w.]+)`.*?:\n\n```\w*\n(.*?)^```", page, re.M | re.S)
    for name, content in blocks:
        (directory / name).write_text(content)
    return [name for name, _ in blocks]


def test_fbrc(tmp_path, pendulum_data, tiny_run, capsys):
    def arguments(root_dir, **sizes):
        return tiny_runs.train_arguments(root_dir, pendulum_data, **sizes)

    contract.check_algorithm(arguments, pendulum_data, tmp_path, capsys, complete=tiny_run)


@pytest.mark.slow
def test_behavior_policy_alone(tmp_path, pendulum_data, capsys):
    def arguments(root_dir, **sizes):
        return tiny_runs.train_arguments(root_dir, pendulum_data, "behavior.gin", **sizes)

    contract.check_algorithm(arguments, pendulum_data, tmp_path, capsys)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["bc", "cql", "sac"])
def test_rival(name, tmp_path, pendulum_data, capsys):
    networks = tiny_runs.NETWORKS[:1] if name == "bc" else tiny_runs.NETWORKS[1:]

    def arguments(root_dir, **sizes):
        options = {"networks": networks, **sizes}
        return tiny_runs.train_arguments(root_dir, pendulum_data, f"{name}.gin", **options)

    contract.check_algorithm(arguments, pendulum_data, tmp_path, capsys)


def test_algorithm_of_the_page_about_adding_one(tmp_path, pendulum_data, capsys):
    page = (tiny_runs.ROOT / "docs" / "add_an_algorithm.md").read_text()
    assert page.count("\n") < 120
    assert extract_files(page, tmp_path) == ["cloning.py", "cloning.gin"]

    def arguments(root_dir, **sizes):
        values = {**tiny_runs.SIZES, "train.batch_size": 32, "DATA": str(pendulum_data), **sizes}
        names = {"TASK": "train.task", "DATA": "train.data", "EVAL_INTERVAL": "train.eval_interval"}
        names["NUM_EVAL_EPISODES"] = "train.num_eval_episodes"
        lines = [
            f"{names.get(name, name)} = {value!r}"
            for name, value in values.items()
            if name not in ("SEED", "BATCH_SIZE", "BEHAVIOR_STEPS")
        ]
        file = str(tmp_path / "cloning.gin")
        return ["train", "--root_dir", str(root_dir), "--gin_file", file, "--gin_bindings", *lines]

    contract.check_algorithm(arguments, pendulum_data, tmp_path, capsys)


def test_page_names_files_that_are_there():
    page = (tiny_runs.ROOT / "docs" / "add_an_algorithm.md").read_text()
    for path in re.findall(r"\]\(\.\./([\w./]+)\)|`(tests/[\w./]+)`", page):
        assert (tiny_runs.ROOT / "".join(path)).exists()
