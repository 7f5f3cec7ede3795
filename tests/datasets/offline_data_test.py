"""OfflineData: what it checks, its episodes, checksum and specs."""

import hashlib
import json
import subprocess
import sys

import numpy as np
import pytest

from fbrc_agent.datasets import offline_data
from fbrc_agent.utils.errors import InputError


def make_arrays():
    random = np.random.default_rng(0)
    return {
        "observations": random.normal(size=(5, 3)).astype(np.float32),
        "actions": random.uniform(-1, 1, size=(5, 2)).astype(np.float32),
        "rewards": random.normal(size=5).astype(np.float32),
        "next_observations": random.normal(size=(5, 3)).astype(np.float32),
        "discounts": np.float32([1, 1, 0, 1, 0]),
    }


def test_from_arrays_keeps_the_arrays_without_a_copy():
    arrays = make_arrays()
    data = offline_data.OfflineData.from_arrays(**arrays)
    assert data.num_transitions == 5
    for name, array in arrays.items():
        assert np.shares_memory(getattr(data, name), array), name
        np.testing.assert_array_equal(getattr(data, name), array)


def test_from_arrays_takes_bounds_returns_and_source():
    data = offline_data.OfflineData.from_arrays(
        **make_arrays(), action_bounds=(-2, 2), episode_returns=[3, 4], source="mine"
    )
    np.testing.assert_array_equal(data.action_maximum, [2, 2])
    np.testing.assert_array_equal(data.episode_returns, [3, 4])
    assert data.source == "mine"


@pytest.mark.parametrize(
    "key, value, message",
    [
        ("rewards", np.zeros(4), "rewards 4"),
        ("rewards", [1.0, 2.0, np.nan, 0.0, 0.0], "rewards has nan in row 2"),
        ("observations", [[1.0], [1.0, 2.0]], "observations"),
        ("next_observations", np.zeros((5, 4)), r"next_observations has shape \(5, 4\).*\(5, 3\)"),
        ("discounts", [1.0, 1.0, 1.0, 1.5, 0.0], "discounts has 1.5 in row 3"),
        ("actions", np.full((5, 2), 2.0), r"actions has \[2.0, 2.0\] in row 0"),
        ("episode_returns", [np.inf], "episode_returns has inf"),
    ],
)
def test_from_arrays_validates(key, value, message):
    with pytest.raises(InputError, match=f"arrays: .*{message}"):
        offline_data.OfflineData.from_arrays(**{**make_arrays(), key: value})


@pytest.mark.parametrize("key, value", [("observations", np.inf), ("actions", 1.5)])
def test_from_arrays_names_a_row_far_down(key, value):
    arrays = {name: np.tile(array.T, 60_000).T for name, array in make_arrays().items()}
    arrays[key][270_000] = value
    with pytest.raises(InputError, match=f"arrays: {key} has .*{value}.* in row 270000"):
        offline_data.OfflineData.from_arrays(**arrays)


def test_from_arrays_accepts_empty_episode_returns_only():
    arrays = {key: value[:0] for key, value in make_arrays().items()}
    with pytest.raises(InputError, match="is empty"):
        offline_data.OfflineData.from_arrays(**arrays)


# Episodes. Transitions 0 to 2 chain and end in a terminal; 3 and 4 chain; 5 stands alone.


def make_episodes():
    states = np.float32([[0], [1], [2], [10], [11], [20]])
    return {
        "observations": states,
        "actions": np.zeros((6, 1)),
        "rewards": np.float32([1, 2, 3, 4, 5, 6]),
        "next_observations": np.float32([[1], [2], [10], [11], [12], [21]]),
        "discounts": np.float32([1, 1, 0, 1, 1, 1]),
    }


def test_episodes_begin_after_discount_0_and_where_observations_do_not_chain():
    data = offline_data.OfflineData.from_arrays(**make_episodes())
    np.testing.assert_array_equal(data.episode_starts, [0, 3, 5])
    assert data.episode_starts.dtype == np.int64
    assert not data.episode_starts.flags.writeable


def test_lengths_starts_and_returns_of_episodes():
    data = offline_data.OfflineData.from_arrays(**make_episodes())
    np.testing.assert_array_equal(data.episode_lengths, [3, 2, 1])
    np.testing.assert_array_equal(data.start_observations, [[0], [10], [20]])
    assert list(data.episodes()) == [slice(0, 3), slice(3, 5), slice(5, 6)]
    assert [data.rewards[rows].sum() for rows in data.episodes()] == [6, 9, 6]


def test_episode_starts_may_be_given():
    starts = np.array([0, 2])
    data = offline_data.OfflineData.from_arrays(**make_episodes(), episode_starts=starts)
    np.testing.assert_array_equal(data.episode_lengths, [2, 4])
    starts[1] = 5
    np.testing.assert_array_equal(data.episode_starts, [0, 2])


@pytest.mark.parametrize(
    "starts, message",
    [
        ([], "is .*the first must be 0"),
        ([1, 3], r"is \[1, 3\].*the first must be 0"),
        ([0.0, 3.0], "is .*of an integer type"),
        ([0, 3, 3], "has 3 in place 1 and 3 next; they must ascend"),
        ([0, 3, 2], "has 3 in place 1 and 2 next"),
        ([0, 6], "has 6 in place 1 .*number of transitions, 6"),
        ([[0, 1]], r"has shape \(1, 2\)"),
    ],
)
def test_episode_starts_that_are_not_rows_are_an_input_error(starts, message):
    with pytest.raises(InputError, match=f"arrays: episode_starts {message}"):
        offline_data.OfflineData.from_arrays(**make_episodes(), episode_starts=starts)


def test_inferred_starts_of_a_long_array_are_those_of_one_comparison():
    random = np.random.default_rng(0)
    observations = random.integers(0, 2, size=(100_000, 5)).astype(np.float32)
    arrays = {
        "observations": observations,
        "actions": np.zeros((100_000, 1)),
        "rewards": np.zeros(100_000),
        "next_observations": np.roll(observations, -1, axis=0),
        "discounts": (np.arange(100_000) % 1000 != 999),
    }
    breaks = random.choice(99_999, size=500, replace=False)
    arrays["next_observations"][breaks, 2] += 1
    data = offline_data.OfflineData.from_arrays(**arrays)
    expected = np.union1d(np.arange(0, 100_000, 1000), breaks + 1)
    np.testing.assert_array_equal(data.episode_starts, expected)


# Records.


def test_description_by_hand():
    data = offline_data.OfflineData.from_arrays(
        **make_episodes(), action_bounds=(-1, 2), episode_returns=[6, 10], source="mine"
    )
    description = data.description()
    assert json.loads(json.dumps(description)) == description
    assert description == {
        "source": "mine",
        "checksum": data.checksum,
        "transitions": 6,
        "episodes": 2,
        "return_mean": 8.0,
        "return_std": 2.0,
        "observation_size": 1,
        "observation_minimum": [0.0],
        "observation_maximum": [20.0],
        "action_size": 1,
        "action_minimum": [-1.0],
        "action_maximum": [2.0],
        "normalization": None,
    }


def test_description_without_complete_episodes_has_no_returns():
    description = offline_data.OfflineData.from_arrays(**make_arrays()).description()
    assert (description["episodes"], description["return_mean"]) == (0, None)


def test_checksum_is_sha256_of_the_transitions():
    arrays = make_arrays()
    digest = hashlib.sha256()
    for name in ("observations", "actions", "rewards", "next_observations", "discounts"):
        digest.update(f"{name}{arrays[name].shape}".encode() + arrays[name].tobytes())
    data = offline_data.OfflineData.from_arrays(**arrays, source="any")
    assert data.checksum == digest.hexdigest()


@pytest.mark.parametrize(
    "name", ["observations", "actions", "rewards", "next_observations", "discounts"]
)
def test_checksum_changes_with_every_array(name):
    arrays = make_arrays()
    before = offline_data.OfflineData.from_arrays(**arrays).checksum
    arrays[name] = arrays[name].copy()
    arrays[name].flat[-1] = 0.5
    assert offline_data.OfflineData.from_arrays(**arrays).checksum != before


def test_specs_describe_the_arrays():
    data = offline_data.OfflineData.from_arrays(**make_arrays(), action_bounds=([-1, -2], [1, 2]))
    observation = data.time_step_spec.observation
    assert (observation.shape, observation.dtype, observation.name) == (
        (3,),
        "float32",
        "observation",
    )
    action = data.action_spec
    assert (action.shape, action.dtype, action.name) == ((2,), "float32", "action")
    np.testing.assert_array_equal(action.minimum, [-1, -2])
    np.testing.assert_array_equal(action.maximum, [1, 2])


def test_import_does_not_load_tensorflow():
    code = (
        "import sys; from fbrc_agent.datasets import offline_data;"
        "print([name for name in ('tensorflow', 'tf_agents', 'gym', 'd4rl')"
        " if name in sys.modules])"
    )
    output = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)
    assert output.stdout.decode().strip() == "[]"
