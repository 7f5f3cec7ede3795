"""D4RL's layout, read and written; the transitions are those of d4rl itself."""

import importlib.util
import os
import sys
import tracemalloc

import h5py
import numpy as np
import pytest

from fbrc_agent.datasets import download, hdf5, offline_data, sources
from fbrc_agent.utils.errors import InputError
from tests.helpers import d4rl_files


@pytest.fixture(scope="module")
def qlearning_dataset():
    """That of the package d4rl, without the simulators that it imports."""
    if importlib.util.find_spec("d4rl") is None:
        pytest.skip("d4rl is not installed; its extra is for Python before 3.12")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("D4RL_SUPPRESS_IMPORT_ERROR", "1")
        for name in ("locomotion", "flow", "kitchen", "carla", "gym_bullet"):
            patch.setitem(sys.modules, f"d4rl.{name}", None)
        import d4rl

        yield d4rl.qlearning_dataset
        for name in [name for name in sys.modules if name.split(".")[0] == "d4rl"]:
            del sys.modules[name]


@pytest.fixture(name="load_by_id")
def _load_by_id(monkeypatch):
    """Loads a file as that of a D4RL task."""

    def load(path, **arguments):
        monkeypatch.setattr(download, "download", lambda task: path)
        return sources.load_dataset("hopper-medium-v2", **arguments)

    return load


ARRAY_NAMES = ("observations", "actions", "rewards", "next_observations", "discounts")


class FakeEnvironment:
    """What `qlearning_dataset` needs of an environment."""

    def __init__(self, columns, max_episode_steps):
        self._columns = columns
        self._max_episode_steps = max_episode_steps

    def get_dataset(self):
        return self._columns


def assert_same_transitions(data, expected):
    for name in ("observations", "actions", "rewards", "next_observations"):
        np.testing.assert_array_equal(getattr(data, name), expected[name], err_msg=name)
    np.testing.assert_array_equal(data.discounts, 1.0 - expected["terminals"])


# The transitions.


@pytest.mark.parametrize(
    "terminal_rows, timeout_rows",
    [
        ([], []),
        ([9], []),
        ([], [9]),
        ([3], [6]),
        ([3, 4, 5], [7, 8]),
        ([0], [1]),
        ([4], [4]),
        ([8, 9], [8]),
    ],
)
def test_transitions_are_those_of_d4rl(
    tmp_path, qlearning_dataset, load_by_id, terminal_rows, timeout_rows
):
    columns = d4rl_files.make_columns(terminal_rows, timeout_rows)
    path = d4rl_files.write(tmp_path / "file.hdf5", columns)
    expected = qlearning_dataset(FakeEnvironment(columns, None))
    assert_same_transitions(load_by_id(path), expected)
    data = sources.load_dataset(path)
    if 9 in terminal_rows:  # A plain file's last row is kept; s stands for its s'.
        last = {key: columns[key][9:] for key in columns}
        last["next_observations"] = last["observations"]
        expected = {key: np.concatenate([value, last[key]]) for key, value in expected.items()}
    assert_same_transitions(data, expected)


@pytest.mark.parametrize("seed", range(5))
def test_transitions_of_random_files_are_those_of_d4rl(
    tmp_path, qlearning_dataset, load_by_id, seed
):
    rows = np.random.default_rng(seed).permutation(500)
    columns = d4rl_files.make_columns(rows[:30], rows[20:60], num_rows=500, seed=seed)
    data = load_by_id(d4rl_files.write(tmp_path / "file.hdf5", columns))
    assert_same_transitions(data, qlearning_dataset(FakeEnvironment(columns, None)))


@pytest.mark.parametrize("max_episode_steps", [1, 2, 3, 7, 1000])
@pytest.mark.parametrize(
    "terminal_rows",
    [
        [],
        [0],
        [0, 1, 2, 3],
        [1],
        [2],
        [2, 5, 8],
        [5, 6, 13, 20, 21],
        [59],
        list(range(3, 60, 4)),
    ],
)
def test_time_limits_without_timeouts_are_those_of_d4rl(
    tmp_path, qlearning_dataset, load_by_id, terminal_rows, max_episode_steps
):
    columns = d4rl_files.make_columns(terminal_rows, num_rows=60)
    del columns["timeouts"]
    expected = qlearning_dataset(FakeEnvironment(columns, max_episode_steps))
    path = d4rl_files.write(tmp_path / "file.hdf5", columns)
    if not len(expected["rewards"]):
        with pytest.raises(InputError, match="no usable transition"):
            load_by_id(path, max_episode_steps=max_episode_steps)
    else:
        data = load_by_id(path, max_episode_steps=max_episode_steps)
        assert_same_transitions(data, expected)


def test_next_observations_and_other_keys_are_ignored_as_in_d4rl(
    tmp_path, qlearning_dataset, load_by_id
):
    columns = d4rl_files.make_columns([3], [6])
    columns["next_observations"] = np.full((10, 3), np.nan)
    columns["infos"] = np.zeros(4)
    path = d4rl_files.write(tmp_path / "file.hdf5", columns)
    for data in (load_by_id(path), sources.load_dataset(path, next_observations="ignore")):
        assert_same_transitions(data, qlearning_dataset(FakeEnvironment(columns, None)))


def test_float64_file_is_rounded_to_float32_as_in_d4rl(tmp_path, qlearning_dataset):
    columns = d4rl_files.make_columns([3], [6], dtype=np.float64)
    data = sources.load_dataset(d4rl_files.write(tmp_path / "file.hdf5", columns))
    assert_same_transitions(data, qlearning_dataset(FakeEnvironment(columns, None)))


def test_numbers_by_hand(tmp_path):
    columns = {
        "observations": [[0.0], [1.0], [2.0], [3.0], [4.0], [5.0]],
        "actions": [[0.0], [0.1], [0.2], [0.3], [0.4], [0.5]],
        "rewards": [[10.0], [11.0], [12.0], [13.0], [14.0], [15.0]],  # A column, as D4RL accepts.
        "terminals": [0, 1, 0, 0, 0, 0],
        "timeouts": [0, 0, 0, 1, 0, 0],
    }
    data = sources.load_dataset(d4rl_files.write(tmp_path / "file.hdf5", columns))
    np.testing.assert_array_equal(data.observations, [[0], [1], [2], [4]])
    np.testing.assert_array_equal(data.actions, np.float32([[0.0], [0.1], [0.2], [0.4]]))
    np.testing.assert_array_equal(data.rewards, [10, 11, 12, 14])
    np.testing.assert_array_equal(data.next_observations, [[1], [2], [3], [5]])
    np.testing.assert_array_equal(data.discounts, [1, 0, 1, 1])
    # The last episode is not complete.
    np.testing.assert_array_equal(data.episode_returns, [21, 25])


@pytest.mark.parametrize("timeout_rows", [[], [4]])
def test_arrays_are_float32_row_major_and_read_only(tmp_path, timeout_rows):
    path = d4rl_files.write(
        tmp_path / "file.hdf5", d4rl_files.make_columns([], timeout_rows, dtype=np.float64)
    )
    data = sources.load_dataset(path)
    for name in (
        "observations",
        "actions",
        "rewards",
        "next_observations",
        "discounts",
        "episode_returns",
        "action_minimum",
        "action_maximum",
    ):
        array = getattr(data, name)
        assert array.dtype == np.float32, name
        assert array.flags.c_contiguous, name
        assert not array.flags.writeable, name


# Episodes of the transitions.


def test_episodes_of_a_file_by_hand(tmp_path):
    # Rows 0 to 2 end in a terminal, 3 to 5 at a time limit, 6 and 7 at both, row 8 is cut at once,
    # and the file ends inside the last episode. Transitions are the rows 0 1 2 3 4 6 9 10.
    columns = d4rl_files.make_columns([2, 7], [5, 7, 8], num_rows=12)
    columns["rewards"] = np.arange(12.0)
    data = sources.load_dataset(d4rl_files.write(tmp_path / "file.hdf5", columns))
    np.testing.assert_array_equal(data.episode_starts, [0, 3, 5, 6])
    np.testing.assert_array_equal(data.episode_lengths, [3, 2, 1, 2])
    np.testing.assert_array_equal(data.start_observations, columns["observations"][[0, 3, 6, 9]])
    assert [data.rewards[rows].tolist() for rows in data.episodes()] == [
        [0, 1, 2],
        [3, 4],
        [6],
        [9, 10],
    ]
    # Of complete episodes, with the rewards of the rows that are no transition.
    np.testing.assert_array_equal(data.episode_returns, [0 + 1 + 2, 3 + 4 + 5, 6 + 7, 8])


def test_episodes_with_inferred_time_limits_by_hand(tmp_path):
    # Steps are counted 0 1, from 1 after the terminal in row 1, from 0 after a cut at count 2:
    # rows 3 and 6 are cut, and row 7 is the last.
    columns = d4rl_files.make_columns([1], num_rows=8)
    del columns["timeouts"]
    path = d4rl_files.write(tmp_path / "file.hdf5", columns)
    data = sources.load_dataset(path, max_episode_steps=3)
    np.testing.assert_array_equal(data.episode_starts, [0, 2, 3])
    np.testing.assert_array_equal(data.start_observations, columns["observations"][[0, 2, 4]])


def test_a_terminal_in_the_last_row_is_kept_but_of_a_task_of_d4rl(tmp_path, load_by_id):
    columns = d4rl_files.make_columns([1, 4], num_rows=5)
    path = d4rl_files.write(tmp_path / "file.hdf5", columns)
    data = sources.load_dataset(path)
    np.testing.assert_array_equal(data.episode_starts, [0, 2])
    np.testing.assert_array_equal(data.episode_lengths, [2, 3])
    np.testing.assert_array_equal(data.discounts, [1, 0, 1, 1, 0])
    np.testing.assert_array_equal(data.next_observations[4], columns["observations"][4])
    data = load_by_id(path)
    np.testing.assert_array_equal(data.episode_starts, [0, 2])
    np.testing.assert_array_equal(data.episode_lengths, [2, 2])


@pytest.mark.parametrize("seed", range(3))
def test_recorded_episodes_are_those_that_the_transitions_show(tmp_path, seed):
    rows = np.random.default_rng(seed).permutation(500)
    columns = d4rl_files.make_columns(rows[:30], rows[20:60], num_rows=500, seed=seed)
    data = sources.load_dataset(d4rl_files.write(tmp_path / "file.hdf5", columns))
    shown = offline_data.OfflineData.from_arrays(**data.arrays)
    np.testing.assert_array_equal(data.episode_starts, shown.episode_starts)


# 87381 rows of observations are a block where the file has no chunks, 88000 with these chunks.
@pytest.mark.parametrize("chunk_rows", [None, 1000])
def test_transitions_of_a_file_of_two_blocks_are_those_of_d4rl(
    tmp_path, qlearning_dataset, chunk_rows
):
    rows = np.random.default_rng(0).permutation(100_000)
    columns = d4rl_files.make_columns(rows[:30], [*rows[20:60], 87380, 88000], num_rows=100_000)
    path = d4rl_files.write(tmp_path / "file.hdf5", columns)
    if chunk_rows:
        with h5py.File(path, "w") as file:
            for key, value in columns.items():
                file.create_dataset(key, data=value, chunks=(chunk_rows,) + (1,) * (value.ndim - 1))
    data = sources.load_dataset(path)
    assert_same_transitions(data, qlearning_dataset(FakeEnvironment(columns, None)))


def test_loading_takes_little_more_memory_than_the_transitions(tmp_path):
    columns = d4rl_files.make_columns([], range(999, 300_000, 1000), num_rows=300_000)
    path = d4rl_files.write(tmp_path / "file.hdf5", columns)
    tracemalloc.start()
    try:
        data = sources.load_dataset(path)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 1.5 * sum(getattr(data, name).nbytes for name in ARRAY_NAMES)


def test_arrays_are_aligned_as_those_of_tensorflow(tmp_path):
    data = sources.load_dataset(
        d4rl_files.write(tmp_path / "file.hdf5", d4rl_files.make_columns([3], [6]))
    )
    assert [getattr(data, name).ctypes.data % 64 for name in ARRAY_NAMES] == [0] * 5


def test_no_complete_episode_means_no_returns(tmp_path):
    data = sources.load_dataset(d4rl_files.write(tmp_path / "file.hdf5", d4rl_files.make_columns()))
    assert data.episode_returns.shape == (0,)


def test_episode_limit_is_read_from_the_file(tmp_path):
    columns = d4rl_files.make_columns()
    del columns["timeouts"]
    path = d4rl_files.write(tmp_path / "file.hdf5", columns, {"max_episode_steps": 5})
    assert sources.load_dataset(path).num_transitions == 8
    assert sources.load_dataset(path, max_episode_steps=3).num_transitions == 6


def test_default_episode_limit_is_logged(tmp_path, caplog):
    columns = d4rl_files.make_columns(num_rows=2001)
    del columns["timeouts"]
    data = sources.load_dataset(d4rl_files.write(tmp_path / "file.hdf5", columns))
    assert data.num_transitions == 1998
    assert "cut after 1000 steps" in caplog.text


@pytest.mark.parametrize("limit", [0, -1, 2.5, "many"])
def test_bad_episode_limit_is_an_input_error(tmp_path, limit):
    columns = d4rl_files.make_columns()
    del columns["timeouts"]
    with pytest.raises(InputError, match="max_episode_steps"):
        sources.load_dataset(
            d4rl_files.write(tmp_path / "file.hdf5", columns), max_episode_steps=limit
        )


# Files that are not usable.


def test_file_that_is_not_hdf5_is_an_input_error(tmp_path):
    (tmp_path / "file.hdf5").write_text("not HDF5")
    with pytest.raises(InputError, match="file.hdf5: cannot be read as HDF5"):
        sources.load_dataset(str(tmp_path / "file.hdf5"))


def test_truncated_file_is_an_input_error(tmp_path):
    path = d4rl_files.write(tmp_path / "file.hdf5", d4rl_files.make_columns())
    os.truncate(path, os.path.getsize(path) - 10)
    with pytest.raises(InputError, match="truncated"):
        sources.load_dataset(path)


def test_damaged_chunk_is_an_input_error(tmp_path):
    path = str(tmp_path / "file.hdf5")
    columns = d4rl_files.make_columns(num_rows=2000)
    hdf5.save_d4rl_hdf5(path, **columns, attributes={})
    with h5py.File(path, "r") as file:
        offset = file["observations"].id.get_chunk_info(0).byte_offset
    with open(path, "r+b") as file:
        file.seek(offset)
        file.write(b"\xff" * 100)
    with pytest.raises(InputError, match="cannot be read as HDF5"):
        sources.load_dataset(path)


@pytest.mark.parametrize("key", ["observations", "actions", "rewards", "terminals"])
def test_missing_key_is_an_input_error_that_lists_the_keys(tmp_path, key):
    columns = d4rl_files.make_columns()
    del columns[key]
    with pytest.raises(InputError, match=f"no key '{key}'.*{', '.join(sorted(columns))}"):
        sources.load_dataset(d4rl_files.write(tmp_path / "file.hdf5", columns))


@pytest.mark.parametrize(
    "key, value, message",
    [
        ("rewards", np.zeros(9), "rewards 9"),
        ("observations", np.zeros(10), r"observations has shape \(10,\).*\[rows, size\]"),
        ("observations", np.zeros((10, 3, 2)), r"observations has shape \(10, 3, 2\)"),
        ("observations", np.zeros((10, 0)), r"observations has shape \(10, 0\)"),
        ("rewards", np.zeros((10, 2)), r"rewards has shape \(10, 2\).*\[rows\]"),
        ("rewards", np.float64(1.0), r"rewards has shape \(\)"),
        ("actions", np.zeros((10, 2), complex), "actions has type complex128"),
        ("actions", np.full((10, 2), b"x"), r"actions has type \|S1"),
    ],
)
def test_array_of_wrong_form_is_an_input_error(tmp_path, key, value, message):
    path = d4rl_files.write(tmp_path / "file.hdf5", {**d4rl_files.make_columns(), key: value})
    with pytest.raises(InputError, match=f"file.hdf5: .*{message}"):
        sources.load_dataset(path)


@pytest.mark.parametrize("key", ["observations", "actions", "rewards"])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_value_that_is_not_finite_is_an_input_error(tmp_path, key, value):
    columns = d4rl_files.make_columns()
    columns[key][7] = value
    with pytest.raises(InputError, match=f"{key} has {value} in row 7"):
        sources.load_dataset(d4rl_files.write(tmp_path / "file.hdf5", columns))


@pytest.mark.parametrize(
    "key, value, message",
    [("observations", np.nan, "nan in row"), ("actions", 1.5, "1.5.* in row")],
)
def test_error_in_a_later_block_names_the_row_of_the_file(tmp_path, key, value, message):
    columns = d4rl_files.make_columns(num_rows=200_000)
    columns[key][150_000] = value
    with pytest.raises(InputError, match=f"{key} has .*{message} 150000"):
        sources.load_dataset(d4rl_files.write(tmp_path / "file.hdf5", columns))


def test_filler_in_a_row_that_is_left_out_is_no_reason_to_refuse(tmp_path):
    columns = d4rl_files.make_columns([], [4, 9])
    expected = sources.load_dataset(d4rl_files.write(tmp_path / "good.hdf5", columns))
    columns["actions"][[4, 9]] = [[np.nan, 0], [7, 0]]
    columns["rewards"][[4, 9]] = np.nan
    data = sources.load_dataset(d4rl_files.write(tmp_path / "file.hdf5", columns))
    assert data.checksum == expected.checksum
    # The sums of the rewards that are numbers.
    returns = [columns["rewards"][:4].sum(), columns["rewards"][5:9].sum()]
    np.testing.assert_allclose(data.episode_returns, returns, rtol=1e-6)


def test_the_observation_of_a_row_that_is_left_out_is_used(tmp_path):
    columns = d4rl_files.make_columns([], [4, 9])
    columns["observations"][4, 1] = np.nan  # The next observation of row 3.
    with pytest.raises(InputError, match="observations has nan in row 4"):
        sources.load_dataset(d4rl_files.write(tmp_path / "file.hdf5", columns))


def test_value_beyond_float32_is_an_input_error(tmp_path):
    columns = d4rl_files.make_columns(dtype=np.float64)
    columns["rewards"][2] = 1e300
    with pytest.raises(InputError, match="rewards has inf in row 2.*float32"):
        sources.load_dataset(d4rl_files.write(tmp_path / "file.hdf5", columns))


def test_empty_file_is_an_input_error(tmp_path):
    with pytest.raises(InputError, match="is empty"):
        sources.load_dataset(
            d4rl_files.write(tmp_path / "file.hdf5", d4rl_files.make_columns(num_rows=0))
        )


@pytest.mark.parametrize("num_rows, timeout_rows", [(1, []), (3, [0, 1])])
def test_file_without_a_pair_of_rows_is_an_input_error(tmp_path, num_rows, timeout_rows):
    columns = d4rl_files.make_columns([], timeout_rows, num_rows=num_rows)
    with pytest.raises(InputError, match=f"no usable transition.*{num_rows} rows"):
        sources.load_dataset(d4rl_files.write(tmp_path / "file.hdf5", columns))


def write_without_rewards(tmp_path):
    columns = d4rl_files.make_columns()
    del columns["rewards"]
    d4rl_files.write(tmp_path / "other.hdf5", {"rewards": np.zeros(10)})
    return d4rl_files.write(tmp_path / "file.hdf5", columns)


@pytest.mark.parametrize(
    "link", [h5py.ExternalLink("other.hdf5", "/rewards"), h5py.SoftLink("/actions")]
)
def test_link_is_an_input_error(tmp_path, link):
    path = write_without_rewards(tmp_path)
    with h5py.File(path, "a") as file:
        file["rewards"] = link
    with pytest.raises(InputError, match="'rewards' is a link"):
        sources.load_dataset(path)


def test_external_storage_is_an_input_error(tmp_path):
    path = write_without_rewards(tmp_path)
    (tmp_path / "raw").write_bytes(bytes(80))
    with h5py.File(path, "a") as file:
        file.create_dataset("rewards", (10,), np.float64, external=str(tmp_path / "raw"))
    with pytest.raises(InputError, match="'rewards' are kept in other files"):
        sources.load_dataset(path)


def test_virtual_dataset_is_an_input_error(tmp_path):
    path = write_without_rewards(tmp_path)
    layout = h5py.VirtualLayout((10,), np.float64)
    layout[:] = h5py.VirtualSource("other.hdf5", "rewards", (10,))
    with h5py.File(path, "a") as file:
        file.create_virtual_dataset("rewards", layout)
    with pytest.raises(InputError, match="'rewards' are kept in other files"):
        sources.load_dataset(path)


def test_group_in_place_of_a_dataset_is_an_input_error(tmp_path):
    path = write_without_rewards(tmp_path)
    with h5py.File(path, "a") as file:
        file.create_group("rewards")
    with pytest.raises(InputError, match="'rewards' is a group"):
        sources.load_dataset(path)


# Action bounds.


def test_bounds_default_to_one(tmp_path):
    data = sources.load_dataset(d4rl_files.write(tmp_path / "file.hdf5", d4rl_files.make_columns()))
    np.testing.assert_array_equal(data.action_minimum, [-1, -1])
    np.testing.assert_array_equal(data.action_maximum, [1, 1])


def test_bounds_are_read_from_the_file_unless_given(tmp_path):
    columns = d4rl_files.make_columns()
    columns["actions"][4] = [-1.5, 2.5]
    path = d4rl_files.write(
        tmp_path / "file.hdf5",
        columns,
        {"action_minimum": [-2.0, -3.0], "action_maximum": [2.0, 3.0]},
    )
    data = sources.load_dataset(path)
    np.testing.assert_array_equal(data.action_minimum, [-2, -3])
    np.testing.assert_array_equal(data.action_maximum, [2, 3])
    data = sources.load_dataset(path, action_bounds=(-4.0, [5.0, 6.0]))
    np.testing.assert_array_equal(data.action_minimum, [-4, -4])
    np.testing.assert_array_equal(data.action_maximum, [5, 6])


@pytest.mark.parametrize("bounds", [None, (-1.0, 1.0), ([-1.0, -2.0], [1.0, 2.0])])
def test_action_outside_its_bounds_is_an_input_error(tmp_path, bounds):
    columns = d4rl_files.make_columns()
    columns["actions"][4] = [1.5, 0.25]
    path = d4rl_files.write(tmp_path / "file.hdf5", columns)
    with pytest.raises(InputError, match=r"\[1.5, 0.25\] in row 4.*action_bounds"):
        sources.load_dataset(path, action_bounds=bounds)


def test_action_outside_its_bounds_by_rounding_is_clipped(tmp_path):
    columns = d4rl_files.make_columns()
    columns["actions"][4] = [1.0 + 5e-7, -1.0 - 5e-7]
    data = sources.load_dataset(d4rl_files.write(tmp_path / "file.hdf5", columns))
    np.testing.assert_array_equal(data.actions[4], [1, -1])
    np.testing.assert_array_equal(data.actions[5:], columns["actions"][5:9])


@pytest.mark.parametrize(
    "bounds",
    [
        (1.0, -1.0),
        (0.0, 0.0),
        (-np.inf, np.inf),
        (np.nan, 1.0),
        3.0,
        (-1.0,),
        ("a", "b"),
        ([-1.0] * 3, [1.0] * 3),
    ],
)
def test_bad_bounds_are_an_input_error(tmp_path, bounds):
    path = d4rl_files.write(tmp_path / "file.hdf5", d4rl_files.make_columns())
    with pytest.raises(InputError, match="bounds"):
        sources.load_dataset(path, action_bounds=bounds)


def test_half_of_the_bounds_in_the_file_is_an_input_error(tmp_path):
    path = d4rl_files.write(
        tmp_path / "file.hdf5", d4rl_files.make_columns(), {"action_maximum": [1.0, 1.0]}
    )
    with pytest.raises(InputError, match="only action_maximum"):
        sources.load_dataset(path)


# Writing.


def test_saved_file_loads_as_it_was_given(tmp_path):
    columns = d4rl_files.make_columns([3], [6, 9])
    path = str(tmp_path / "file.hdf5")
    hdf5.save_d4rl_hdf5(
        path,
        **columns,
        attributes={
            "action_minimum": [-2.0, -2.0],
            "action_maximum": [2.0, 2.0],
            "environment": "Pendulum-v1",
        },
    )
    with h5py.File(path, "r") as file:
        assert set(file) == set(columns)
        for key, column in columns.items():
            np.testing.assert_array_equal(file[key][()], column)
            assert file[key].dtype == column.dtype
            assert file[key].compression == "gzip"
        assert file.attrs["environment"] == "Pendulum-v1"
    assert os.listdir(tmp_path) == ["file.hdf5"]
    data = sources.load_dataset(path)
    np.testing.assert_array_equal(data.action_minimum, [-2, -2])
    assert data.num_transitions == 8


@pytest.mark.parametrize("dtype", [bool, np.uint8, np.int8, np.int64, np.float32, np.float64])
@pytest.mark.parametrize("shape", [(10,), (10, 1)])
def test_flags_are_0_and_1_of_any_type(tmp_path, dtype, shape):
    columns = d4rl_files.make_columns(terminal_rows=(3, 8), timeout_rows=(5,))
    expected = sources.load_dataset(d4rl_files.write(tmp_path / "bool.hdf5", columns))
    for key in ("terminals", "timeouts"):
        columns[key] = columns[key].astype(dtype).reshape(shape)
    data = sources.load_dataset(d4rl_files.write(tmp_path / "other.hdf5", columns))
    assert data.checksum == expected.checksum
    np.testing.assert_array_equal(data.discounts, [1, 1, 1, 0, 1, 1, 1, 0])


@pytest.mark.parametrize("key", ["terminals", "timeouts"])
@pytest.mark.parametrize("value, text", [(2, "2"), (-1, "-1"), (0.5, "0.5"), (255, "255")])
def test_flag_of_another_value_is_refused(tmp_path, key, value, text):
    columns = d4rl_files.make_columns(num_rows=300_000)  # More than one block.
    columns[key] = columns[key].astype(np.float64)
    columns[key][[299_990, 299_995]] = value
    message = rf"file.hdf5: {key} has {text}(\.0)? in row 299990; every value must be 0 or 1"
    with pytest.raises(InputError, match=message):
        sources.load_dataset(d4rl_files.write(tmp_path / "file.hdf5", columns))
    with pytest.raises(InputError, match=message):
        hdf5.save_d4rl_hdf5(str(tmp_path / "file.hdf5"), **columns, attributes={})


def test_saved_file_has_next_observations_if_given(tmp_path):
    columns = d4rl_files.make_columns()
    path = str(tmp_path / "file.hdf5")
    hdf5.save_d4rl_hdf5(
        path, **columns, attributes={}, next_observations=columns["observations"] + 1
    )
    with h5py.File(path, "r") as file:
        np.testing.assert_array_equal(file["next_observations"], columns["observations"] + 1)


def test_failed_save_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch):
    path = d4rl_files.write(tmp_path / "file.hdf5", d4rl_files.make_columns())

    def fail(*unused_args):
        raise OSError("disk is full")

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(InputError, match="disk is full"):
        hdf5.save_d4rl_hdf5(path, **d4rl_files.make_columns(num_rows=4), attributes={})
    assert os.listdir(tmp_path) == ["file.hdf5"]
    assert sources.load_dataset(path).num_transitions == 9


def test_save_refuses_arrays_that_do_not_fit_together(tmp_path):
    with pytest.raises(InputError, match="rewards 3"):
        hdf5.save_d4rl_hdf5(
            str(tmp_path / "file.hdf5"),
            **{**d4rl_files.make_columns(), "rewards": np.zeros(3)},
            attributes={},
        )


def test_save_into_a_missing_directory_is_an_input_error(tmp_path):
    path = str(tmp_path / "missing" / "file.hdf5")
    with pytest.raises(InputError, match="missing/file.hdf5: cannot be written"):
        hdf5.save_d4rl_hdf5(path, **d4rl_files.make_columns(), attributes={})
