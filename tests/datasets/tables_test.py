"""Tables: each format, written without this package, gives the transitions of its arrays."""

import csv

import numpy as np
import pytest

from fbrc_agent.datasets import sources
from fbrc_agent.utils.errors import InputError
from tests.helpers import logs

pd = pytest.importorskip("pandas")
pq = pytest.importorskip("pyarrow.parquet")
pa = pytest.importorskip("pyarrow")

COLUMNS = {
    "observations": "state_*",
    "actions": ["force", "torque"],
    "rewards": "reward",
    "terminals": "done",
    "episodes": "run",
}
WITH_NEXT = {**COLUMNS, "next_observations": "next_state_*"}


def make_frame(episodes=None):
    """A frame with one column for each number, as logs have them."""
    columns = logs.columns(episodes or logs.make_episodes())
    frame = pd.DataFrame({f"state_{i}": columns["observations"][:, i] for i in range(3)})
    for i in range(3):
        frame[f"next_state_{i}"] = columns["next_observations"][:, i]
    frame["force"], frame["torque"] = columns["actions"].T
    frame["reward"], frame["done"] = columns["rewards"], columns["terminals"]
    frame["run"] = columns["episodes"]
    return frame


def write_csv(frame, path):
    frame.to_csv(path, index=False, float_format="%.9g")
    return str(path)


def write_parquet(frame, path):
    frame.to_parquet(path)
    return str(path)


def as_frame(frame, _):
    return frame


def as_dict(frame, _):
    return {name: frame[name].to_numpy() for name in frame}


def write_npz(frame, path):
    np.savez(path, **as_dict(frame, None))
    return str(path)


FORMS = {
    "csv": write_csv,
    "parquet": write_parquet,
    "npz": write_npz,
    "frame": as_frame,
    "dict": as_dict,
}


@pytest.fixture(name="form", params=FORMS)
def _form(request, tmp_path):
    return lambda frame: FORMS[request.param](frame, tmp_path / f"log.{request.param}")


def test_a_table_with_next_observations_gives_every_step(form):
    data = sources.load_dataset(form(make_frame()), columns=WITH_NEXT)
    logs.assert_same(data, logs.transitions(logs.make_episodes()))
    assert data.num_rows == data.num_transitions == 9


def test_a_table_without_leaves_out_what_has_no_next_row(form):
    data = sources.load_dataset(form(make_frame()), columns=COLUMNS)
    expected = logs.without_last_observations(logs.make_episodes())
    logs.assert_same(data, expected, (3, 3, 1))
    assert data.num_rows == 9


def test_next_observations_that_are_missing_at_the_end_are_as_if_there_were_none(form):
    frame = make_frame()
    names = [f"next_state_{i}" for i in range(3)]
    frame[names] = frame.groupby("run")[["state_0", "state_1", "state_2"]].shift(-1)
    data = sources.load_dataset(form(frame), columns=WITH_NEXT)
    expected = logs.without_last_observations(logs.make_episodes())
    logs.assert_same(data, expected, (3, 3, 1))


@pytest.mark.parametrize("name", ["csv", "parquet", "frame", "dict"])
def test_episodes_may_have_names(tmp_path, name):
    frame = make_frame()
    frame["run"] = frame["run"].map({0: "b", 1: "a", 2: "c"})
    source = FORMS[name](frame, tmp_path / f"log.{name}")
    data = sources.load_dataset(source, columns=WITH_NEXT)
    logs.assert_same(data, logs.transitions(logs.make_episodes()))


@pytest.mark.parametrize("extension", ["npz", "dict"])
@pytest.mark.parametrize("names", [("terminals", "timeouts"), ("terminations", "truncations")])
def test_arrays_by_their_own_names_need_no_columns(tmp_path, extension, names):
    columns = logs.columns(logs.make_episodes())
    del columns["episodes"]
    for name, key in zip(names, ("terminals", "timeouts")):
        columns[name] = columns.pop(key)
    if extension == "npz":
        np.savez(tmp_path / "log.npz", **columns)
    source = columns if extension == "dict" else str(tmp_path / "log.npz")
    logs.assert_same(sources.load_dataset(source), logs.transitions(logs.make_episodes()))


def test_lerobots_layout(tmp_path):
    """Columns as LeRobot's v3 files have them, several episodes a file, two files."""
    episodes = logs.make_episodes()
    columns = logs.columns(episodes)
    table = pa.table(
        {
            "observation.state": pa.array(list(columns["observations"]), pa.list_(pa.float32())),
            "action": pa.FixedSizeListArray.from_arrays(columns["actions"].reshape(-1), 2),
            "next.reward": columns["rewards"],
            "next.done": columns["terminals"],
            "episode_index": columns["episodes"],
            "index": np.arange(9),
        }
    )
    folder = tmp_path / "data" / "chunk-000"
    folder.mkdir(parents=True)
    pq.write_table(table.slice(0, 3), folder / "file-000.parquet")
    pq.write_table(table.slice(3), folder / "file-001.parquet", row_group_size=2)
    names = {
        "observations": "observation.state",
        "actions": "action",
        "rewards": "next.reward",
        "terminals": "next.done",
        "episodes": "episode_index",
    }
    (tmp_path / "meta").mkdir()
    (tmp_path / "meta" / "info.json").write_text("{}")
    pq.write_table(pa.table({"task_index": [0]}), tmp_path / "meta" / "tasks.parquet")
    expected = logs.without_last_observations(episodes)
    for source in (tmp_path, str(tmp_path / "data/*/*.parquet"), [*map(str, folder.iterdir())]):
        source = sorted(source) if isinstance(source, list) else source
        logs.assert_same(sources.load_dataset(source, columns=names), expected, (3, 3, 1))


def test_a_frame_of_lists_and_of_pandas_types():
    frame = make_frame().convert_dtypes()
    frame["state"] = list(logs.columns(logs.make_episodes())["observations"])
    data = sources.load_dataset(frame, columns={**COLUMNS, "observations": "state"})
    logs.assert_same(data, logs.without_last_observations(logs.make_episodes()), (3, 3, 1))


def test_prefixed_columns_stand_in_the_order_of_their_numbers():
    columns = logs.columns(logs.make_episodes())
    wide = np.arange(9 * 12.0).reshape(9, 12)
    source = {f"x{i}": wide[:, i] for i in (10, 2, 11, 0, 1, 3, 4, 5, 6, 7, 8, 9)}
    source.update({key: columns[key] for key in ("actions", "rewards", "episodes")})
    data = sources.load_dataset(source, columns={"observations": "x*"})
    np.testing.assert_array_equal(data.observations[0], wide[0])


def test_the_callers_arrays_stay_as_they_are():
    columns = logs.columns(logs.make_episodes())
    columns["actions"][2] = 1.5
    before = {key: value.copy() for key, value in columns.items()}
    data = sources.load_dataset(columns, clip_actions=True)
    assert data.actions.max() == 1
    for key, value in columns.items():
        np.testing.assert_array_equal(value, before[key])


def test_a_time_limit_may_be_given():
    columns = logs.columns(logs.make_episodes())
    for key in ("timeouts", "episodes", "next_observations"):
        del columns[key]
    # After the terminal in row 2, rows 3 to 6 are cut and 7 and 8 are not over.
    data = sources.load_dataset(columns, max_episode_steps=4)
    logs.assert_same(data, logs.without_last_observations(logs.make_episodes()), (3, 3, 1))


# What is refused.


@pytest.mark.parametrize(
    "columns, message",
    [
        ({"observations": "speed_*"}, "no column 'speed_.*it has state_0.*load_dataset.columns"),
        ({"observations": 3}, "columns has 3 for observations"),
        ({"observation": "state_*"}, "key 'observation'; its keys must be of observations"),
        (["state_*"], "it must be a dict"),
        ({"rewards": ["reward", "force"]}, r"rewards has shape \(9, 2\)"),
        ({"episodes": "done"}, "episodes has (False|0.0) in row 3 again"),
    ],
)
def test_columns_that_do_not_fit_are_refused(form, columns, message):
    wanted = {**COLUMNS, **columns} if isinstance(columns, dict) else columns
    with pytest.raises(InputError, match=message):
        sources.load_dataset(form(make_frame()), columns=wanted)


def edit(name, row, value):
    def change(frame):
        frame[name] = frame[name].astype(object)
        frame.loc[row, name] = value

    return change


@pytest.mark.parametrize(
    "change, message",
    [
        (edit("state_1", 5, np.nan), "observations has nan in row 5"),
        (edit("force", 4, 1.5), r"actions has \[1.5.*in row 4.*action_bounds"),
        (edit("done", 4, 2), "terminals has 2.* in row 4"),
        (edit("reward", 3, np.inf), "rewards has inf in row 3"),
        (edit("next_state_0", 3, 7.0), "next_observations has .* in row 3.*'use'"),
        (edit("run", 8, 0), "episodes has 0.* in row 8 again"),
        (edit("run", 8, np.nan), "(run|episodes) has nan in row 8"),
    ],
)
def test_what_is_wrong_is_named_by_its_row(form, change, message):
    frame = make_frame()
    change(frame)
    frame = frame.astype(float)
    with pytest.raises(InputError, match=message):
        sources.load_dataset(form(frame), columns=WITH_NEXT)


def test_a_word_among_numbers_is_refused(tmp_path):
    frame = make_frame().astype(object)
    frame.loc[4, "state_2"] = "broken"
    for source in (frame, write_csv(frame, tmp_path / "log.csv")):
        with pytest.raises(InputError, match="state_2 has 'broken' in row 4; it must be a number"):
            sources.load_dataset(source, columns=COLUMNS)


def test_lists_of_several_sizes_are_refused(tmp_path):
    table = {"observations": [[1.0, 2.0], [1.0]], "actions": [0.1, 0.2], "rewards": [0.0, 1.0]}
    pq.write_table(pa.table({**table, "episodes": [0, 0]}), tmp_path / "log.parquet")
    for source in (str(tmp_path / "log.parquet"), pd.DataFrame({**table, "episodes": [0, 0]})):
        with pytest.raises(InputError, match=r"observations has a value of shape \(1,\) in row 1"):
            sources.load_dataset(source)


def test_dicts_are_refused(tmp_path):
    columns = logs.columns(logs.make_episodes())
    columns["observations"] = {"position": np.zeros((9, 1)), "velocity": np.zeros((9, 2))}
    with pytest.raises(InputError, match="observations is a dict of position, velocity"):
        sources.load_dataset(columns)
    states = pa.array([{"x": 1.0}] * 2)
    table = pa.table({"observations": states, "actions": [0.1] * 2, "rewards": [0.0] * 2})
    pq.write_table(table, tmp_path / "log.parquet")
    with pytest.raises(InputError, match="observations has type struct.*which is a dict"):
        sources.load_dataset(str(tmp_path / "log.parquet"))


def test_discrete_actions_are_named():
    columns = logs.columns(logs.make_episodes())
    columns["actions"] = np.arange(9) % 4
    with pytest.raises(InputError, match="actions has type int64, as discrete actions have"):
        sources.load_dataset({**columns, "actions": columns["actions"][:, None]})
    assert sources.load_dataset(
        {**columns, "actions": columns["actions"][:, None]}, action_bounds=(0, 3)
    ).action_maximum == [3]


def test_nothing_that_ends_an_episode_is_refused():
    columns = logs.columns(logs.make_episodes())
    columns = {key: columns[key] for key in ("observations", "actions", "rewards")}
    with pytest.raises(InputError, match="no column says where an episode ends; name one"):
        sources.load_dataset(columns)


@pytest.mark.parametrize(
    "content, message",
    [
        (b"", "no column 'observations'; it has none"),
        (b"observations,actions,rewards,episodes\n1,0,2,0\n1\n", "row 1 has 1 cells.* 4"),
        (b"a,a\n1,2\n", "two columns have the same name"),
        (b"\xff\xfe\n", "cannot be read as CSV"),
        (b"observations,actions,rewards,episodes\n", "is empty"),
    ],
)
def test_damaged_csv_is_refused(tmp_path, content, message):
    (tmp_path / "log.csv").write_bytes(content)
    with pytest.raises(InputError, match=message):
        sources.load_dataset(str(tmp_path / "log.csv"))


@pytest.mark.parametrize("extension", ["npz", "parquet"])
def test_damaged_files_are_refused(tmp_path, extension):
    path = FORMS[extension](make_frame(), tmp_path / f"log.{extension}")
    with open(path, "rb") as file:
        content = file.read()
    for damaged in (b"", b"words", content[: len(content) // 2], content[100:]):
        (tmp_path / f"log.{extension}").write_bytes(damaged)
        with pytest.raises(InputError, match="cannot be read as"):
            sources.load_dataset(path, columns=COLUMNS)


def test_objects_in_npz_are_refused(tmp_path):
    columns = logs.columns(logs.make_episodes())
    columns["rewards"] = columns["rewards"].astype(object)
    np.savez(tmp_path / "log.npz", **columns)
    with pytest.raises(InputError, match="cannot be read as npz"):
        sources.load_dataset(str(tmp_path / "log.npz"))


def test_a_missing_library_is_named_with_its_command(tmp_path, monkeypatch):
    path = write_parquet(make_frame(), tmp_path / "log.parquet")
    monkeypatch.setitem(__import__("sys").modules, "pyarrow.parquet", None)
    with pytest.raises(InputError, match=r"pip install 'fbrc_agent\[parquet\]'"):
        sources.load_dataset(path, columns=COLUMNS)


def test_quotes_blank_lines_and_words_of_csv(tmp_path):
    lines = [
        ["observations", "actions", "rewards", "terminals", "next_observations", "note"],
        ["1.5", " 0.5", "1e0", "False", "2.5", "a, b"],
        ["2.5", "-0.5", "2", "TRUE", "", 'said "x"'],
    ]
    with open(tmp_path / "log.csv", "w", encoding="utf-8-sig", newline="") as file:
        csv.writer(file).writerows([*lines[:2], [], lines[2]])
    data = sources.load_dataset(str(tmp_path / "log.csv"))
    np.testing.assert_array_equal(data.observations, [[1.5], [2.5]])
    np.testing.assert_array_equal(data.next_observations, [[2.5], [2.5]])  # s stands for s'.
    np.testing.assert_array_equal(data.actions, [[0.5], [-0.5]])
    np.testing.assert_array_equal(data.discounts, [1, 0])
