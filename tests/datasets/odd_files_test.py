"""Odd and damaged files of every kind: the right transitions or one InputError, no silent loss."""

import gc
import os
import pathlib
import shutil
import tempfile
import warnings

import h5py
import numpy as np
import pytest

from fbrc_agent.datasets import sources
from fbrc_agent.utils.errors import InputError
from tests.datasets import episodes_test
from tests.helpers import logs

hypothesis = pytest.importorskip("hypothesis")
pd = pytest.importorskip("pandas")
pytest.importorskip("pyarrow")
st = pytest.importorskip("hypothesis.strategies")

_SETTINGS = hypothesis.settings(
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=list(hypothesis.HealthCheck),
)


def load(source, **arguments):
    """Returns the data, or None for an InputError of one sentence or two."""
    try:
        return sources.load_dataset(source, **arguments)
    except InputError as error:
        message = str(error).split("\n  In call to configurable")[0]
        assert message and len(message) < 2000
        return None


# Odd tables: columns as users have them, each kind of source.


def as_hdf5(path, columns):
    with h5py.File(path, "w") as file:
        for key, value in columns.items():
            if value.dtype.kind in "OU":
                value = value.astype("S")
            file[key] = value


def as_npz(path, columns):
    np.savez(path, **columns)


def as_flat_frame(columns):
    """A column for each number, as CSV has it."""
    flat = {}
    for key, value in columns.items():
        if value.ndim == 2:
            flat.update({f"{key}_{i}": value[:, i] for i in range(value.shape[1])})
        else:
            flat[key] = value
    return pd.DataFrame(flat)


def flat_names(columns):
    return {key: f"{key}_*" if value.ndim == 2 else key for key, value in columns.items()}


def as_list_frame(columns):
    return pd.DataFrame({k: list(v) if v.ndim > 1 else v for k, v in columns.items()})


KINDS = ("dict", "npz", "hdf5", "csv", "parquet", "flat parquet", "frame")


def make_source(kind, folder, columns):
    """Returns (source, columns argument) of columns in one kind of source."""
    path = os.path.join(folder, f"log.{kind.split()[-1]}")
    if kind == "dict":
        return columns, None
    if kind == "frame":
        return as_list_frame(columns), None
    if kind == "parquet":
        as_list_frame(columns).to_parquet(path)
    elif kind == "flat parquet":
        as_flat_frame(columns).to_parquet(path)
    elif kind == "csv":
        as_flat_frame(columns).to_csv(path, index=False, float_format="%.17g")
    else:
        {"npz": as_npz, "hdf5": as_hdf5}[kind](path, columns)
    return path, flat_names(columns) if kind in ("csv", "flat parquet") else None


def edit(draw, columns):
    """Makes one thing of the columns odd, in place; perhaps what is good all the same."""
    key = draw(st.sampled_from(sorted(columns)))
    value = columns[key]
    row = draw(st.integers(0, max(0, len(value) - 1)))
    kind = draw(
        st.sampled_from(
            (
                "drop",
                "short",
                "value",
                "value",
                "value",
                "type",
                "column",
                "object",
                "flat",
                "empty",
            )
        )
    )
    if kind == "drop":
        del columns[key]
    elif kind == "short":
        columns[key] = value[:row]
    elif kind in ("value", "type") and value.dtype.kind not in "biuf":
        pass  # An earlier edit made it no number.
    elif kind == "value" and len(value):
        odd = st.sampled_from((np.nan, np.inf, -np.inf, 1e300, 2.0, -1.0, 0.5, 0.0, 1.0 + 1e-7))
        columns[key] = value.astype(np.float64)
        columns[key][row] = draw(odd)
    elif kind == "type":
        types = (np.float64, np.float16, np.int64, np.uint8, bool, complex, "S4", "U4")
        with np.errstate(all="ignore"), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            columns[key] = value.astype(draw(st.sampled_from(types)))
    elif kind == "column":
        columns[key] = value.reshape(*value.shape, 1)
    elif kind == "object" and value.ndim == 1 and len(value):
        columns[key] = value.astype(object)
        columns[key][row] = draw(st.sampled_from((None, "x", "", "1")))
    elif kind == "flat" and value.ndim == 2:
        columns[key] = value[:, 0]
    elif kind == "empty" and value.ndim == 2:
        columns[key] = value[:, :0]


@st.composite
def odd_columns(draw):
    lengths = draw(st.lists(st.integers(1, 4), min_size=1, max_size=4))
    columns = logs.columns(logs.make_episodes(draw(st.integers(0, 9)), lengths))
    for key in ("terminals", "timeouts", "episodes", "next_observations"):
        if draw(st.booleans()):
            del columns[key]
    for _ in range(draw(st.integers(0, 2))):
        if columns:
            edit(draw, columns)
    return columns


def numbers(value):
    """Columns as the float32 that any reader has to make of them; None where they are none."""
    try:
        with np.errstate(over="ignore"):
            result = np.asarray(value, np.float64).astype(np.float32)
    except (TypeError, ValueError):
        return None
    return result[..., 0] if result.ndim == 3 else result


def assert_right(data, columns):
    """The transitions are those of the rows, one by one; what is left out has no next row."""
    observations = numbers(columns["observations"])
    observations = observations.reshape(len(observations), -1)
    rewards = numbers(columns["rewards"]).reshape(-1)
    nexts = columns.get("next_observations")
    num_rows = len(observations)
    assert data.num_rows == num_rows
    flags = {k: np.zeros(num_rows) for k in ("terminals", "timeouts")}
    flags.update({k: numbers(columns[k]).reshape(-1) for k in flags if k in columns})
    episodes = np.asarray(columns.get("episodes", np.zeros(num_rows))).reshape(-1)
    place = 0
    for row in range(num_rows):
        terminal, cut = flags["terminals"][row] == 1, flags["timeouts"][row] == 1
        is_last = row == num_rows - 1 or str(episodes[row]) != str(episodes[row + 1])
        own = None if nexts is None else numbers(nexts).reshape(num_rows, -1)[row]
        has_own = own is not None and not np.isnan(own).all()
        is_kept = terminal or has_own or not (cut or is_last or own is not None)
        if not is_kept:
            continue
        assert data.discounts[place] == 1 - terminal
        np.testing.assert_array_equal(data.observations[place], observations[row])
        np.testing.assert_array_equal(data.rewards[place], rewards[row])
        if has_own:
            np.testing.assert_array_equal(data.next_observations[place], own)
        elif not terminal:
            np.testing.assert_array_equal(data.next_observations[place], observations[row + 1])
        place += 1
    assert place == data.num_transitions
    assert data.episode_lengths.sum() == place


@hypothesis.settings(_SETTINGS, max_examples=300)
@hypothesis.given(odd_columns(), st.sampled_from(KINDS))
def test_odd_tables(columns, kind):
    with tempfile.TemporaryDirectory() as folder:
        try:
            source, names = make_source(kind, folder, columns)
        except Exception:  # The format cannot hold it.
            hypothesis.reject()
        data = load(source, columns=names)
        if data is not None:
            assert_right(data, columns)
        gc.collect(0)


# Damaged files: good ones of each kind, with bytes cut off, changed or put in.


@pytest.fixture(name="good", scope="module")
def _good(tmp_path_factory):
    """A folder for each kind, and what of it to load."""
    root = tmp_path_factory.mktemp("good")
    columns = logs.columns(logs.make_episodes())
    made = {}
    for kind in ("hdf5", "npz", "csv", "parquet"):
        (root / kind).mkdir()
        source, names = make_source(kind, str(root / kind), columns)
        made[kind] = (root / kind, os.path.basename(source), names)
    try:
        minari = pytest.importorskip("minari")
        for data_format in ("hdf5", "arrow"):
            folder = root / f"minari {data_format}"
            with pytest.MonkeyPatch.context() as patch:
                patch.setenv("MINARI_DATASETS_PATH", str(folder))
                episodes_test.create(minari, logs.make_episodes(), data_format=data_format)
            made[f"minari {data_format}"] = (folder, "test/log-v0", None)
        (root / "tfrecord").mkdir()
        episodes_test.write_tfrecords(root / "tfrecord/log.tfrecord", logs.make_episodes())
        made["tfrecord"] = (root / "tfrecord", "log.tfrecord", None)
    except pytest.skip.Exception:
        pass
    return made


@st.composite
def damage(draw, content):
    """Returns bytes with some cut off, changed, put in or doubled."""
    kind = draw(st.sampled_from(("cut", "change", "change", "insert", "zeros", "double")))
    start = draw(st.integers(0, len(content)))
    if kind == "cut":
        return content[:start]
    if kind == "double":
        return content + content
    size = draw(st.integers(1, 40))
    if kind == "zeros":
        return content[:start] + bytes(size) + content[start + size :]
    new = draw(st.binary(min_size=1, max_size=size))
    return content[:start] + new + content[start + (len(new) if kind == "change" else 0) :]


DAMAGED = ("hdf5", "npz", "csv", "parquet", "tfrecord", "minari hdf5", "minari arrow")


@pytest.mark.parametrize("kind", DAMAGED)
def test_damaged_files(good, kind):
    if kind not in good:
        pytest.skip(f"{kind} is not installed")
    folder, name, names = good[kind]
    files = sorted(
        str(p.relative_to(folder)) for p in pathlib.Path(folder).rglob("*") if p.is_file()
    )

    @hypothesis.settings(
        _SETTINGS, max_examples=15 if kind.split()[0] in ("minari", "tfrecord") else 60
    )
    @hypothesis.given(st.data())
    def check(data):
        with tempfile.TemporaryDirectory() as copy:
            shutil.copytree(folder, copy, dirs_exist_ok=True)
            path = pathlib.Path(copy, data.draw(st.sampled_from(files)))
            path.write_bytes(data.draw(damage(path.read_bytes())))
            loaded = load(os.path.join(copy, name), columns=names)
            if loaded is not None:  # Bytes without a checksum may be other numbers, but no fewer.
                assert all(np.isfinite(array).all() for array in loaded.arrays.values())
                assert loaded.num_rows >= loaded.num_transitions > 0
                assert loaded.episode_lengths.sum() == loaded.num_transitions

    check()


# Episodes with their last observation: any lengths, ends and numbers.


@hypothesis.settings(_SETTINGS, max_examples=15)
@hypothesis.given(
    st.lists(st.integers(1, 4), min_size=1, max_size=5),
    st.sampled_from((None, "short", "nan", "outside", "early end")),
    st.sampled_from(("hdf5", "arrow")),
)
def test_odd_episodes_of_minari(lengths, oddity, data_format):
    minari = pytest.importorskip("minari")
    episodes = logs.make_episodes(lengths=lengths)
    if oddity == "short":
        episodes[-1].observations = episodes[-1].observations[:-1]
    elif oddity == "nan":
        episodes[-1].observations[-1] = np.nan
    elif oddity == "outside":
        episodes[-1].actions[0] = 5
    elif oddity == "early end" and lengths[-1] > 1:
        episodes[-1].terminals[0] = True
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setenv("MINARI_DATASETS_PATH", folder)
        try:
            episodes_test.create(minari, episodes, data_format=data_format)
        except Exception:
            hypothesis.reject()
        data = load("minari:test/log-v0")
    if oddity is None:
        logs.assert_same(data, logs.transitions(episodes), lengths)
    elif oddity != "early end" or lengths[-1] > 1:
        assert data is None


@hypothesis.settings(_SETTINGS, max_examples=10)
@hypothesis.given(st.lists(st.integers(1, 4), min_size=1, max_size=5))
def test_episodes_of_trajectories(lengths):
    pytest.importorskip("tf_agents")
    episodes = logs.make_episodes(lengths=lengths)
    with tempfile.TemporaryDirectory() as folder:
        data = load(episodes_test.write_tfrecords(os.path.join(folder, "log"), episodes))
    # A driver does not write the frame after the last one: of an episode that is not over, the last
    # step is left out, whether another episode follows or not.
    kept = np.concatenate(
        [np.append(np.ones(n - 1, bool), i % 3 < 2) for i, n in enumerate(lengths)]
    )
    if not kept.any():
        assert data is None
        return
    assert data.num_rows == sum(lengths)
    expected = {name: array[kept] for name, array in logs.transitions(episodes).items()}
    lengths = [n - (i % 3 == 2) for i, n in enumerate(lengths)]
    logs.assert_same(data, expected, [n for n in lengths if n])
