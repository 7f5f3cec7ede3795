"""What gin may do to a data set, against NumPy."""

import dataclasses

import numpy as np
import pytest

from fbrc_agent.datasets import offline_data, preprocessing
from fbrc_agent.utils.errors import InputError


def make_data():
    """Three episodes of 2, 3 and 1 transitions with returns 3, 9 and 1; column 1 is constant."""
    generator = np.random.default_rng(0)
    observations = generator.normal(5000.0, 100.0, (6, 3))
    observations[:, 1] = 7.0
    return offline_data.OfflineData.from_arrays(
        observations=observations,
        actions=generator.uniform(-1, 1, (6, 2)),
        rewards=[1.0, 2.0, 2.0, 3.0, 4.0, 1.0],
        next_observations=observations + 1.0,
        discounts=[1, 0, 1, 1, 0, 1],
        episode_starts=[0, 2, 5],
        episode_returns=[3.0, 9.0],
    )


def test_nothing_is_done_by_default():
    data = make_data()
    assert preprocessing.preprocess(data) is data
    assert data.description()["normalization"] is None


def test_observations_are_normalized_by_column():
    raw, data = make_data(), preprocessing.preprocess(make_data(), normalize_observations=True)
    np.testing.assert_allclose(data.observations.mean(axis=0), 0.0, atol=1e-5)
    np.testing.assert_allclose(data.observations.std(axis=0), [1.0, 0.0, 1.0], rtol=1e-5)
    mean = raw.observations.mean(axis=0, dtype=np.float64)
    scale = [raw.observations[:, 0].std(), 1.0, raw.observations[:, 2].std()]
    expected = (raw.next_observations - mean) / scale
    np.testing.assert_allclose(data.next_observations, expected, rtol=1e-3, atol=1e-5)
    for name in ("actions", "rewards", "discounts", "episode_starts"):
        np.testing.assert_array_equal(getattr(data, name), getattr(raw, name))
    assert data.checksum != raw.checksum


def test_description_has_raw_ranges_and_the_numbers_that_normalize():
    raw, data = make_data(), preprocessing.preprocess(make_data(), normalize_observations=True)
    ours, theirs = data.description(), raw.description()
    for name in ("observation_minimum", "observation_maximum"):
        np.testing.assert_allclose(ours[name], theirs[name], rtol=1e-6)
    np.testing.assert_allclose(ours["normalization"]["mean"], raw.observations.mean(axis=0))
    assert ours["normalization"]["scale"][1] == 1.0


def test_rewards_are_scaled_and_then_shifted():
    data = preprocessing.preprocess(make_data(), reward_scale=0.5, reward_shift=-1.0)
    np.testing.assert_allclose(data.rewards, [-0.5, 0.0, 0.0, 0.5, 1.0, -0.5])
    np.testing.assert_array_equal(data.episode_returns, [3.0, 9.0])  # Raw.


@pytest.mark.parametrize(
    "fraction, rows, starts",
    [(0.1, [2, 3, 4], [0]), (0.5, [0, 1, 2, 3, 4], [0, 2]), (1.0, range(6), [0, 2, 5])],
)
def test_best_episodes_stay_in_their_order(fraction, rows, starts):
    raw = dataclasses.replace(make_data(), num_rows=6)  # As a reader gives it.
    data = preprocessing.preprocess(raw, best_fraction=fraction)
    for name, array in raw.arrays.items():
        np.testing.assert_array_equal(data.arrays[name], array[list(rows)], name)
    assert data.episode_starts.tolist() == starts
    assert "rows_left_out" not in [finding.kind for finding in data.findings]


@pytest.mark.parametrize(
    "name, value",
    [
        ("reward_scale", float("nan")),
        ("reward_shift", "1"),
        ("normalize_observations", 1),
        ("best_fraction", 0.0),
        ("best_fraction", 1.5),
    ],
)
def test_bad_argument_is_refused_by_its_name(name, value):
    with pytest.raises(InputError, match=f"preprocess.{name} is "):
        preprocessing.preprocess(make_data(), **{name: value})


def test_rewards_that_overflow_are_refused():
    with pytest.raises(InputError, match="rewards has inf in row 0"):
        preprocessing.preprocess(make_data(), reward_scale=1e39)
