"""Rows become transitions: next observations of a file's own, several files, what is left out."""

import h5py
import numpy as np
import pytest

from fbrc_agent.datasets import download, rows, sources, transitions
from fbrc_agent.utils.errors import InputError
from tests.helpers import d4rl_files, logs


def write(path, columns, drop=("episodes",), **changes):
    columns = {key: value for key, value in {**columns, **changes}.items() if key not in drop}
    return d4rl_files.write(path, columns)


@pytest.fixture(name="columns")
def _columns():
    return logs.columns(logs.make_episodes())


# Next observations of a file's own.


def test_own_next_observations_keep_every_step(tmp_path, columns):
    data = sources.load_dataset(write(tmp_path / "log.hdf5", columns))
    logs.assert_same(data, logs.transitions(logs.make_episodes()))
    assert data.findings == ()


def test_names_of_gymnasium_are_those_of_d4rl(tmp_path, columns):
    names = {"terminations": columns["terminals"], "truncations": columns["timeouts"]}
    drop = ("terminals", "timeouts", "episodes")
    data = sources.load_dataset(write(tmp_path / "log.hdf5", columns, drop, **names))
    logs.assert_same(data, logs.transitions(logs.make_episodes()))


def test_without_timeouts_next_observations_say_where_an_episode_ends(tmp_path, columns):
    path = write(tmp_path / "log.hdf5", columns, ("timeouts", "episodes"))
    logs.assert_same(sources.load_dataset(path), logs.transitions(logs.make_episodes()))


def test_contradicting_next_observations_are_refused_unless_trusted_or_ignored(tmp_path, columns):
    nexts = columns["next_observations"].copy()
    nexts[4, 1] += 1e-3
    path = write(tmp_path / "log.hdf5", columns, next_observations=nexts)
    with pytest.raises(InputError, match="next_observations has .* in row 4, but observations has"):
        sources.load_dataset(path)
    data = sources.load_dataset(path, next_observations="use")
    expected = {**logs.transitions(logs.make_episodes()), "next_observations": nexts}
    logs.assert_same(data, expected, (3, 2, 2, 2))
    assert [(f.kind, f.count) for f in data.findings] == [("broken_episodes", 1)]
    data = sources.load_dataset(path, next_observations="ignore")
    logs.assert_same(data, logs.without_last_observations(logs.make_episodes()), (3, 3, 1))


def test_next_observations_may_differ_by_rounding(tmp_path, columns):
    nexts = columns["next_observations"].astype(np.float64) + 1e-7
    data = sources.load_dataset(write(tmp_path / "log.hdf5", columns, next_observations=nexts))
    np.testing.assert_array_equal(data.next_observations, nexts.astype(np.float32))
    np.testing.assert_array_equal(data.episode_lengths, logs.LENGTHS)


def test_a_shuffled_buffer_is_read_as_steps_of_their_own(tmp_path, columns):
    order = [5, 0, 7, 2, 4, 1, 8, 3, 6]
    shuffled = {key: columns[key][order] for key in columns}
    path = write(tmp_path / "log.hdf5", shuffled, ("timeouts", "episodes"))
    data = sources.load_dataset(path)
    expected = {
        name: array[order] for name, array in logs.transitions(logs.make_episodes()).items()
    }
    logs.assert_same(data, expected, [1] * 9)


@pytest.mark.parametrize("row, wanted", [(2, "kept"), (6, "left out"), (4, "refused")])
def test_a_missing_next_observation_of_a_terminal_a_cut_and_another_row(
    tmp_path, columns, row, wanted
):
    columns["next_observations"][row] = np.nan
    path = write(tmp_path / "log.hdf5", columns)
    if wanted == "refused":
        with pytest.raises(InputError, match="next_observations has nan in row 4"):
            sources.load_dataset(path)
        return
    expected = logs.transitions(logs.make_episodes())
    kept = np.arange(9) != (row if wanted == "left out" else -1)
    lengths = (3, 3, 2) if wanted == "left out" else (3, 4, 2)
    data = sources.load_dataset(path)
    logs.assert_same(data, {name: array[kept] for name, array in expected.items()}, lengths)
    assert data.num_rows == 9
    if wanted == "kept":
        np.testing.assert_array_equal(data.next_observations[2], data.observations[2])


def test_own_next_observations_of_several_blocks(tmp_path):
    episodes = logs.make_episodes(lengths=(70_000, 50_000, 40_000))
    data = sources.load_dataset(write(tmp_path / "log.hdf5", logs.columns(episodes)))
    logs.assert_same(data, logs.transitions(episodes), (70_000, 50_000, 40_000))


def test_a_wrong_mode_is_refused(tmp_path, columns):
    with pytest.raises(InputError, match="it must be 'check', 'use' or 'ignore'"):
        sources.load_dataset(columns, next_observations="yes")


# Several files.


def test_files_are_one_data_set_in_which_no_episode_continues(tmp_path, monkeypatch):
    parts = [logs.make_episodes(seed) for seed in range(3)]
    paths = [
        write(tmp_path / f"{i}.hdf5", logs.columns(part), ("episodes", "next_observations"))
        for i, part in enumerate(parts)
    ]
    (tmp_path / "README.md").write_text("no data")
    expected = logs.without_last_observations([e for part in parts for e in part])
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path.parent))
    home = f"~/{tmp_path.name}"
    for source in (paths, str(tmp_path), "*.hdf5", ".", f"{home}/?.hdf5", home, tmp_path):
        data = sources.load_dataset(source)
        logs.assert_same(data, expected, (3, 3, 1) * 3)
        assert data.num_rows == 27
        assert len(data.episode_returns) == 6
    assert sources.load_dataset(f"{home}/1.hdf5").source == f"{home}/1.hdf5"
    assert sources.load_dataset("1.hdf5").num_transitions == 7


def test_kinds_of_files_may_be_mixed(tmp_path, columns):
    write(tmp_path / "a.hdf5", columns)
    np.savez(tmp_path / "b.npz", **columns)
    data = sources.load_dataset([str(tmp_path), columns])
    expected = logs.transitions(logs.make_episodes())
    expected = {name: np.concatenate([array] * 3) for name, array in expected.items()}
    logs.assert_same(data, expected, logs.LENGTHS * 3)


def test_a_row_is_named_with_its_file(tmp_path, columns):
    write(tmp_path / "a.hdf5", columns)
    columns["rewards"][5] = np.nan
    write(tmp_path / "b.hdf5", columns)
    with pytest.raises(InputError, match="b.hdf5: rewards has nan in row 5"):
        sources.load_dataset(str(tmp_path))


def test_files_of_several_sizes_or_bounds_are_refused(tmp_path, columns):
    write(tmp_path / "a.hdf5", columns)
    path = write(tmp_path / "b.hdf5", columns)
    with h5py.File(path, "a") as file:
        file.attrs.update(action_minimum=[-2, -2], action_maximum=[2, 2])
    with pytest.raises(InputError, match="bounds are .*b.hdf5|b.hdf5: the action bounds are"):
        sources.load_dataset(str(tmp_path))
    assert sources.load_dataset(str(tmp_path), action_bounds=(-3, 3)).num_transitions == 18
    write(tmp_path / "b.hdf5", columns, actions=np.zeros((9, 3)))
    with pytest.raises(
        InputError, match="b.hdf5: has observations of size 3 and actions of size 3"
    ):
        sources.load_dataset(str(tmp_path))


@pytest.mark.parametrize("name", ["", "nothing", "*.csv"])
def test_nothing_to_read_is_refused(tmp_path, name):
    (tmp_path / "nothing").mkdir()
    with pytest.raises(InputError, match="no data file; it must have files that end with"):
        sources.load_dataset(str(tmp_path / name))


def test_keys_of_an_hdf5_file_may_have_other_names(tmp_path, columns):
    names = {"observations": "obs", "episodes": "run", "terminals": "done"}
    path = str(tmp_path / "log.hdf5")
    with h5py.File(path, "w") as file:
        for key, value in columns.items():
            if key not in ("timeouts", "next_observations"):
                file[
                    f"group/{names.get(key, key)}" if key == "episodes" else names.get(key, key)
                ] = value
    wanted = {"observations": "obs", "episodes": "group/run", "terminals": "done"}
    data = sources.load_dataset(path, columns=wanted)
    logs.assert_same(data, logs.without_last_observations(logs.make_episodes()), (3, 3, 1))
    with pytest.raises(InputError, match="of an HDF5 file it must be one key"):
        sources.load_dataset(path, columns={"observations": ["obs", "obs"]})


# A terminal row needs no next observation.


def test_a_terminal_that_a_time_limit_cut_too_is_kept_but_of_d4rls_layout(tmp_path, monkeypatch):
    columns = d4rl_files.make_columns([4, 9], [4, 9])
    arrays = sources.load_dataset(columns)
    np.testing.assert_array_equal(arrays.discounts, [1, 1, 1, 1, 0, 1, 1, 1, 1, 0])
    path = d4rl_files.write(tmp_path / "log.hdf5", columns)
    monkeypatch.setattr(download, "download", lambda task: path)
    for source in (path, "hopper-medium-v2"):
        assert sources.load_dataset(source).num_transitions == 8


def make_rows(discounts):
    """Three rows of one episode, the last of which holds only its last observation."""
    return rows.Rows(
        "log",
        rows.ArrayColumn(np.float32([[0], [1], [2]])),
        rows.ArrayColumn(np.zeros((3, 1))),
        rows.ArrayColumn(np.float32([10, 20, np.nan])),
        discounts=np.float64(discounts),
        ends=np.array([False, False, True]),
        steps=np.array([True, True, False]),
    )


def test_a_row_that_is_no_step_gives_only_its_observation():
    data = transitions.pair([make_rows([0.9, 0, 1])], "log")
    np.testing.assert_array_equal(data.next_observations, [[1], [2]])
    np.testing.assert_array_equal(data.discounts, np.float32([0.9, 0]))
    np.testing.assert_array_equal(data.episode_returns, [30])
    assert data.num_rows == 2


@pytest.mark.parametrize("discount", [-0.1, 1.1, np.nan])
def test_discounts_are_from_0_to_1(discount):
    with pytest.raises(InputError, match="log: discounts has .* in row 1; every value must be in"):
        make_rows([1, discount, 1])


# Actions outside their bounds.


def test_actions_are_clipped_on_request(tmp_path, columns):
    columns["actions"][[2, 5]] = [[3, 0], [0, -1.5]]
    path = write(tmp_path / "log.hdf5", columns)
    with pytest.raises(InputError, match="load_dataset.clip_actions = True"):
        sources.load_dataset(path)
    data = sources.load_dataset(path, clip_actions=True)
    np.testing.assert_array_equal(data.actions[[2, 5]], [[1, 0], [0, -1]])
    assert [(f.kind, f.count) for f in data.findings] == [("clipped_actions", 2)]
