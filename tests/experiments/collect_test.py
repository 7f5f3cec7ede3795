"""Tests of fbrc_agent.collect."""

import os

import gin
import h5py
import numpy as np
import pytest

from fbrc_agent.datasets import sources
from fbrc_agent.datasets.sources import load_dataset
from fbrc_agent.experiments import collect
from fbrc_agent.utils.errors import InputError

_GIN = os.path.join(os.path.dirname(__file__), os.pardir, os.pardir, "gin", "collect")

# Pendulum's returns lie between -2000 and 0: the first evaluation, at step 400, reaches these.
_SMALL = {
    "collect.task": "Pendulum-v1",
    "collect.medium_return": -1e4,
    "collect.expert_return": -1e4,
    "OnlineSac.max_steps": 590,
    "OnlineSac.num_random_steps": 390,
    "OnlineSac.evaluation_interval": 200,
    "OnlineSac.num_evaluation_episodes": 1,
    "OnlineSac.batch_size": 4,
    "make_sac_agent.hidden_units": (4,),
}


@pytest.fixture(autouse=True)
def _gin():
    gin.clear_config()
    for name, value in _SMALL.items():
        gin.bind_parameter(name, value)
    yield
    gin.clear_config()


def _read(path):
    with h5py.File(path, "r") as file:
        return {name: file[name][:] for name in file}, dict(file.attrs)


def test_random_data(tmp_path):
    path = str(tmp_path / "random.hdf5")
    collect.collect(path, level="random", num_transitions=1030)
    columns, attributes = _read(path)
    assert {name: (str(c.dtype), c.shape) for name, c in columns.items()} == {
        "observations": ("float32", (1030, 3)),
        "actions": ("float32", (1030, 1)),
        "rewards": ("float32", (1030,)),
        "terminals": ("bool", (1030,)),
        "timeouts": ("bool", (1030,)),
    }
    assert np.flatnonzero(columns["timeouts"]).tolist() == [199, 399, 599, 799, 999, 1029]
    assert not columns["terminals"].any()
    # Uniform in [-2, 2]: standard deviation 2 / sqrt(3).
    assert abs(columns["actions"].mean()) < 0.15
    assert columns["actions"].std() == pytest.approx(2.0 / np.sqrt(3.0), rel=0.05)
    assert attributes["level"] == "random"


def test_rows_obey_the_dynamics(tmp_path):
    """Every pair that load_dataset makes is a step of Pendulum's equations of motion."""
    path = str(tmp_path / "random.hdf5")
    collect.collect(path, level="random", num_transitions=500)
    data = load_dataset(path)
    assert data.num_transitions == 500 - 3
    cos, sin, velocity = data.observations.T
    expected = np.clip(velocity + (15.0 * sin + 3.0 * data.actions[:, 0]) * 0.05, -8.0, 8.0)
    np.testing.assert_allclose(data.next_observations[:, 2], expected, atol=1e-5)
    cost = np.arctan2(sin, cos) ** 2 + 0.1 * velocity**2 + 0.001 * data.actions[:, 0] ** 2
    np.testing.assert_allclose(data.rewards, -cost, atol=1e-4)


@pytest.fixture(scope="module", name="replay")
def _replay(tmp_path_factory):
    path = str(tmp_path_factory.mktemp("collect") / "replay.hdf5")
    gin.clear_config()
    for name, value in {**_SMALL, "collect.level": "medium-replay", "collect.seed": 3}.items():
        gin.bind_parameter(name, value)
    collect.collect(output=path)
    return path


def test_medium_replay_is_the_buffer_up_to_the_threshold(replay):
    data = load_dataset(replay)
    assert data.num_transitions == 398  # Two episodes of 200 steps; the last step has no successor.
    assert len(data.episode_returns) == 2
    np.testing.assert_array_equal(data.action_minimum, [-2.0])
    np.testing.assert_array_equal(data.action_maximum, [2.0])


def test_a_file_says_where_it_comes_from(replay):
    _, attributes = _read(replay)
    assert attributes["task"] == attributes["environment"] == "Pendulum-v1"
    assert attributes["level"] == "medium-replay"
    assert attributes["seed"] == 3
    assert attributes["medium_return"] == -1e4
    assert -2000.0 < attributes["medium_return_reached"] < 0.0
    assert attributes["medium_return_environment_steps"] == 400
    assert attributes["gymnasium_version"][0].isdigit()
    assert attributes["tf_agents_version"][0].isdigit()
    assert attributes["fbrc_agent_version"][0].isdigit()
    assert "OnlineSac.batch_size = 4" in attributes["gin_config"]


def test_the_seed_repeats_the_data(replay, tmp_path):
    path = str(tmp_path / "again.hdf5")
    collect.collect(path, level="medium-replay", seed=3)
    assert load_dataset(path).checksum == load_dataset(replay).checksum


def test_another_seed_gives_other_data(tmp_path):
    checksums = []
    for seed in (0, 1):
        path = str(tmp_path / f"{seed}.hdf5")
        collect.collect(path, level="random", num_transitions=10, seed=seed)
        checksums.append(load_dataset(path).checksum)
    assert checksums[0] != checksums[1]


def test_medium_expert_is_half_and_half(tmp_path, monkeypatch):
    parts = []
    rollout = collect._rollout

    def record(*arguments):
        parts.append(rollout(*arguments))
        return parts[-1]

    monkeypatch.setattr(collect, "_rollout", record)
    monkeypatch.setattr(collect, "train", _pretend_to_train)
    path = str(tmp_path / "medium-expert.hdf5")
    collect.collect(path, level="medium-expert", num_transitions=301)
    columns, attributes = _read(path)
    assert [len(part["rewards"]) for part in parts] == [150, 151]
    joined = np.concatenate([part["observations"] for part in parts])
    np.testing.assert_array_equal(columns["observations"], joined)
    # Each half is cut within its first episode.
    assert np.flatnonzero(columns["timeouts"]).tolist() == [149, 300]
    assert attributes["medium_return_reached"] == 1.0
    assert attributes["expert_return_reached"] == 2.0


def _pretend_to_train(environment_id, seed, thresholds):
    recorder = collect.Recorder(environment_id, seed, capacity=1)
    for value, _ in enumerate(thresholds, 1):
        yield float(value), recorder, lambda observation: np.zeros(1, np.float32)


@pytest.mark.parametrize("level, name", [("medium", "medium_return"), ("expert", "expert_return")])
def test_medium_and_expert_are_rollouts_at_their_threshold(tmp_path, monkeypatch, level, name):
    monkeypatch.setattr(collect, "train", _pretend_to_train)
    path = str(tmp_path / "data.hdf5")
    collect.collect(path, level=level, num_transitions=250)
    columns, attributes = _read(path)
    assert np.flatnonzero(columns["timeouts"]).tolist() == [199, 249]
    assert [key for key in attributes if key.endswith("_reached")] == [f"{name}_reached"]


def test_a_threshold_out_of_reach_is_an_error_and_writes_nothing(tmp_path):
    with pytest.raises(InputError, match="590 steps; medium_return = 1 needs"):
        collect.collect(str(tmp_path / "data.hdf5"), level="medium", medium_return=1.0)
    assert os.listdir(tmp_path) == []


def test_an_interruption_writes_nothing(tmp_path, monkeypatch):
    def interrupt(*arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr(collect, "train", interrupt)
    with pytest.raises(KeyboardInterrupt):
        collect.collect(str(tmp_path / "data.hdf5"), level="medium")
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"level": "good"}, "collect.level is 'good'; it must be .*random"),
        ({"level": "medium", "medium_return": None}, "collect.medium_return is None"),
        ({"level": "random", "seed": -1}, "collect.seed is -1"),
        ({"level": "random", "num_transitions": 1}, "collect.num_transitions is 1"),
        ({"level": "random", "task": "pen-human-v0"}, "'pen-human-v0' has no Gymnasium environ"),
    ],
)
def test_wrong_arguments_are_an_input_error(tmp_path, arguments, message):
    with pytest.raises(InputError, match=message):
        collect.collect(str(tmp_path / "data.hdf5"), **arguments)


def test_an_output_that_exists_is_kept(tmp_path):
    path = tmp_path / "data.hdf5"
    path.write_text("mine")
    with pytest.raises(InputError, match="exists already"):
        collect.collect(str(path), level="random")
    assert path.read_text() == "mine"


def test_a_missing_directory_is_an_input_error(tmp_path):
    with pytest.raises(
        InputError, match="cannot be written; it must be the name of a file in a directory"
    ):
        collect.collect(str(tmp_path / "no" / "data.hdf5"), level="random")


@pytest.mark.parametrize("name, task", [("pendulum", "Pendulum-v1"), ("hopper", "Hopper-v4")])
def test_the_shipped_gin_files_are_complete(name, task):
    gin.clear_config()
    gin.parse_config_file(os.path.join(_GIN, f"{name}.gin"))
    assert gin.query_parameter("%TASK") == task
    bound = gin.config_str()
    for binding in ("medium_return", "expert_return", "max_steps", "learning_rate"):
        assert f".{binding} = " in bound


@pytest.mark.parametrize(
    "name, num_transitions, num_episodes, mean_return",
    [("pendulum", 11_940, 60, -865.1), ("hopper", 94_997, 921, 249.5)],
)
def test_the_embedded_data_is_what_its_readme_says(
    name, num_transitions, num_episodes, mean_return
):
    data = load_dataset(f"embedded:{name}-medium-replay")
    assert data.num_transitions == num_transitions
    assert len(data.episode_returns) == num_episodes
    assert data.episode_returns.mean() == pytest.approx(mean_return, abs=0.05)


@pytest.mark.parametrize("name", ["pendulum", "hopper"])
def test_the_embedded_data_was_made_with_the_shipped_gin_file(name):
    path = os.path.join(os.path.dirname(sources.__file__), "embedded", f"{name}-medium-replay.hdf5")
    _, attributes = _read(path)
    gin.clear_config()
    gin.parse_config_file(os.path.join(_GIN, f"{name}.gin"))
    shipped = [line for line in gin.config_str().splitlines() if " = " in line]
    assert len(shipped) > 15
    assert set(shipped) <= set(attributes["gin_config"].splitlines())
