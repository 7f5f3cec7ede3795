"""Tables: CSV, Parquet, npz, a pandas frame or a dict of arrays, one row for each step.

What the columns are called is `load_dataset.columns`: for each name of `rows.NAMES` a column, a
prefix that ends with * (`state_*`), or a list of columns, whose values are joined.
"""

import contextlib
import csv
import itertools
import re
import zipfile
import zlib
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from typing import Any, Optional

import numpy as np

from fbrc_agent.datasets import checks, optional, rows
from fbrc_agent.utils.errors import InputError

_FLAGS = ("terminals", "timeouts")

# Words of CSV files that are numbers; an empty cell is a missing value.
_WORDS = {"": "nan", "true": "1", "false": "0", "none": "nan", "null": "nan", "na": "nan"}

# Cells are turned into numbers this many rows at a time, so that their text is not all in memory.
_CSV_ROWS = 50_000


def is_table(source: Any) -> bool:
    """Whether `source` is a pandas frame or a dict of arrays."""
    return isinstance(source, Mapping) or (hasattr(source, "columns") and hasattr(source, "iloc"))


def read(
    source: Any,
    columns: Optional[Mapping[str, Any]] = None,
    max_episode_steps: Optional[int] = None,
    use_next_observations: bool = True,
) -> rows.Rows:
    """Reads the rows of a table.

    Args:
      source: Path of a file that ends with .csv, .parquet or .npz; a pandas frame; or a dict of
        arrays [N] or [N, size].
      columns: As of `load_dataset`.
      max_episode_steps: As of `load_dataset`.
      use_next_observations: Whether the table's own next observations are read.

    Returns:
      The rows.

    Raises:
      InputError: If the table is not usable.
    """
    name, names, fetch = _open(source)
    chosen = _choose(name, names, columns)
    if not use_next_observations:
        chosen.pop("next_observations", None)
    fetched = fetch(list(dict.fromkeys(column for parts in chosen.values() for column in parts)))
    arrays = {key: _join(name, key, parts, fetched) for key, parts in chosen.items()}
    for key in _FLAGS:
        if key in arrays:
            checks.check_flags(name, key, arrays[key])
    stored = {key: rows.ArrayColumn(array) for key, array in arrays.items() if key in _STORED}
    flags = {key: arrays[key].astype(bool) for key in _FLAGS if key in arrays}
    return rows.from_columns(name, stored, flags, arrays.get("episodes"), max_episode_steps)


_STORED = (*rows.STEP_COLUMNS, "next_observations")

# What `_open` returns: the name in messages, the columns' names, and what fetches some of them.
_Fetch = Callable[[list[str]], Mapping[str, np.ndarray]]


def _open(source: Any) -> tuple[str, list[str], _Fetch]:
    if not isinstance(source, str):
        return _open_object(source)
    if source.endswith(".npz"):
        return source, *_open_npz(source)
    if source.endswith(".parquet"):
        return source, *_open_parquet(source)
    return source, *_open_csv(source)


def _open_object(source: Any) -> tuple[str, list[str], _Fetch]:
    is_frame = not isinstance(source, Mapping)
    name = type(source).__name__ if is_frame else "arrays"
    keys = {str(key): key for key in (source.columns if is_frame else source)}
    if is_frame and len(keys) < len(source.columns):
        raise InputError(f"{name}: two columns have the same name; names must differ.")

    def fetch(wanted: list[str]) -> dict[str, np.ndarray]:
        values = {column: source[keys[column]] for column in wanted}
        return {column: _as_array(name, column, value) for column, value in values.items()}

    return name, list(keys), fetch


def _as_array(name: str, column: str, value: Any) -> np.ndarray:
    """Returns an array of a pandas series, or of what NumPy makes one of."""
    if isinstance(value, Mapping):
        raise InputError(
            f"{name}: {column} is a dict of {', '.join(map(str, value))}; it must be an array: put "
            "these beside it, and name them in load_dataset.columns as a list."
        )
    if hasattr(value, "dtype") and not isinstance(value.dtype, np.dtype):
        if hasattr(value, "to_numpy"):  # pandas has types of its own, with a missing value.
            value = value.to_numpy(dtype=object, na_value=np.nan)
    try:
        return np.asarray(value)
    except (TypeError, ValueError) as error:
        raise InputError(f"{name}: {column} is not an array ({checks.reason(error)}).") from error


def _open_npz(path: str) -> tuple[list[str], _Fetch]:
    def fetch(wanted: list[str]) -> dict[str, np.ndarray]:
        try:
            with np.load(path, allow_pickle=False) as file:
                return {column: file[column] for column in wanted}
        except _NPZ_ERRORS as error:
            raise InputError(f"{path}: cannot be read as npz ({checks.reason(error)}).") from error

    try:
        with np.load(path, allow_pickle=False) as file:
            return list(file.keys()), fetch
    except _NPZ_ERRORS as error:
        raise InputError(f"{path}: cannot be read as npz ({checks.reason(error)}).") from error


# What NumPy and zipfile raise for damaged files.
_NPZ_ERRORS = (
    *(OSError, ValueError, KeyError, EOFError, AttributeError, RuntimeError, SyntaxError),
    *(MemoryError, zipfile.BadZipFile, zlib.error),
)


def _open_parquet(path: str) -> tuple[list[str], _Fetch]:
    parquet = optional.require("pyarrow.parquet", "parquet", f"{path}: a Parquet file")

    def fetch(wanted: list[str]) -> dict[str, np.ndarray]:
        with _arrow_errors(path):
            table = parquet.read_table(path, columns=wanted, partitioning=None)
            return {column: _from_arrow(path, column, table[column]) for column in wanted}

    with _arrow_errors(path):
        names = parquet.read_schema(path).names
    if len(set(names)) < len(names):
        raise InputError(f"{path}: two columns have the same name; names must differ.")
    return names, fetch


@contextlib.contextmanager
def _arrow_errors(path: str) -> Iterator[None]:
    arrow = optional.require("pyarrow", "parquet", f"{path}: a Parquet file")
    try:
        yield
    except (arrow.ArrowException, OSError, ValueError, NotImplementedError) as error:
        raise InputError(f"{path}: cannot be read as Parquet ({checks.reason(error)}).") from error


def _from_arrow(path: str, column: str, chunked: Any) -> np.ndarray:
    """Returns an array [N], or [N, size] of lists of one size; of others an array of objects."""
    types = optional.require("pyarrow", "parquet", path).types
    if types.is_struct(chunked.type) or types.is_map(chunked.type):
        raise InputError(
            f"{path}: {column} has type {chunked.type}, which is a dict; it must be a number or a "
            "list of numbers in each row."
        )
    parts = [_from_chunk(chunk) for chunk in chunked.chunks if len(chunk)]
    if not parts:
        return np.zeros([0])
    if len({part.shape[1:] for part in parts}) > 1:  # Lists of several sizes.
        parts = [_objects(part) if part.ndim > 1 else part for part in parts]
    return parts[0] if len(parts) == 1 else np.concatenate(parts)


def _objects(lists: np.ndarray) -> np.ndarray:
    """Returns the rows of an array as objects in an array of one dimension."""
    result = np.empty(len(lists), object)
    result[:] = list(lists)
    return result


def _from_chunk(chunk: Any) -> np.ndarray:
    if hasattr(chunk, "value_lengths") and not chunk.null_count:
        lengths = set(chunk.value_lengths().unique().to_pylist())
        if len(lengths) == 1:
            return chunk.flatten().to_numpy(zero_copy_only=False).reshape(len(chunk), *lengths)
    return chunk.to_numpy(zero_copy_only=False)


def _open_csv(path: str) -> tuple[list[str], _Fetch]:
    names, lines = _csv_lines(path)
    lines.close()
    if len(set(names)) < len(names):
        raise InputError(f"{path}: two columns have the same name; names must differ.")

    def fetch(wanted: list[str]) -> dict[str, np.ndarray]:
        _, lines = _csv_lines(path)
        places = [names.index(column) for column in wanted]
        blocks: list[list[np.ndarray]] = [[] for _ in wanted]
        while block := list(itertools.islice(lines, _CSV_ROWS)):
            for place, parsed in zip(places, blocks):
                parsed.append(_parse([cells[place] for cells in block]))
        parts = {column: parsed or [np.zeros([0])] for column, parsed in zip(wanted, blocks)}
        return {column: np.concatenate(parsed) for column, parsed in parts.items()}

    return names, fetch


def _csv_lines(path: str) -> tuple[list[str], Generator[list[str], None, None]]:
    """Returns the names in the first line, and a generator of the cells of each other line."""

    def lines() -> Generator[list[str], None, None]:
        try:
            with open(path, encoding="utf-8-sig", newline="") as file:
                num_cells = 0
                for row, cells in enumerate(line for line in csv.reader(file) if line):
                    if row and len(cells) != num_cells:
                        raise InputError(
                            f"{path}: row {row - 1} has {len(cells)} cells; it must have as many "
                            f"as the line of names, {num_cells}."
                        )
                    num_cells = len(cells)
                    yield cells
        except (OSError, UnicodeDecodeError, csv.Error) as error:
            raise InputError(f"{path}: cannot be read as CSV ({checks.reason(error)}).") from error

    iterator = lines()
    names = [name.strip() for name in next(iterator, [])]
    return names, iterator


def _parse(cells: list[str]) -> np.ndarray:
    """Returns cells as float64, or as text where one is neither a number nor one of `_WORDS`."""
    with contextlib.suppress(ValueError):
        return np.array(list(map(float, cells)))
    with contextlib.suppress(ValueError):
        return np.array([float(_WORDS.get(cell.strip().lower(), cell)) for cell in cells])
    return np.array(cells)


def _choose(
    name: str, names: list[str], columns: Optional[Mapping[str, Any]]
) -> dict[str, list[str]]:
    """Returns the table's columns for each name of `rows.NAMES` that it has or must have."""
    given = rows.check_columns(columns)
    chosen: dict[str, list[str]] = {}
    for key, others in rows.NAMES.items():
        if key in given:
            chosen[key] = _resolve(name, key, given[key], names)
        else:
            found = next((column for column in (key, *others) if column in names), None)
            if found is not None:
                chosen[key] = [found]
            elif key in rows.STEP_COLUMNS:
                raise _missing(name, key, names)
    return chosen


def _resolve(name: str, key: str, wanted: Any, names: list[str]) -> list[str]:
    """Returns the names of columns that a name, a prefix with * or a list of these stands for."""
    if isinstance(wanted, (list, tuple)) and wanted:
        return [column for part in wanted for column in _resolve(name, key, part, names)]
    if not isinstance(wanted, str):
        raise InputError(
            f"load_dataset.columns has {wanted!r} for {key}; it must be the name of a column, a "
            "prefix that ends with *, or a list of names."
        )
    if wanted in names:
        return [wanted]
    found = [column for column in names if column.startswith(wanted[:-1])]
    if not wanted.endswith("*") or not found:
        raise _missing(name, wanted, names)
    return sorted(found, key=lambda column: [_number(part) for part in re.split(r"(\d+)", column)])


def _number(part: str) -> tuple[int, str]:
    return (int(part), "") if part.isdecimal() else (-1, part)


def _missing(name: str, column: str, names: list[str]) -> InputError:
    listed = ", ".join(names[:20]) + (f" and {len(names) - 20} more" if len(names) > 20 else "")
    return InputError(
        f"{name}: has no column {column!r}; it has {listed or 'none'}; name its columns in "
        "load_dataset.columns, such as {'observations': 'state_*', 'actions': 'action'}."
    )


def _join(
    name: str, key: str, columns: Iterable[str], fetched: Mapping[str, np.ndarray]
) -> np.ndarray:
    """Returns the columns side by side, [N, size] of `checks.MATRICES`, [N] of the others."""
    parts = {column: fetched[column] for column in columns}
    if key == "episodes" and len(parts) == 1:
        return next(iter(parts.values()))  # Names or numbers.
    parts = {column: _numbers(name, column, part) for column, part in parts.items()}
    for column, part in parts.items():
        if part.ndim not in (1, 2):
            raise InputError(
                f"{name}: {column} has shape {part.shape}; it must be [rows] or [rows, size]."
            )
    checks.check_lengths(name, parts)
    if len(parts) > 1 or (key in checks.MATRICES and next(iter(parts.values())).ndim == 1):
        arrays = [part.reshape(len(part), -1) for part in parts.values()]
        return checks.to_array(name, key, np.concatenate(arrays, axis=1))
    return checks.to_array(name, key, next(iter(parts.values())))


def _numbers(name: str, column: str, array: np.ndarray) -> np.ndarray:
    """Returns an array of numbers; of objects and text if they are numbers or lists of one size."""
    if array.dtype.kind not in "OUS":
        return array
    values = array.reshape(-1).tolist() if array.ndim else [array]
    sizes = [None if _is_scalar(value) else np.shape(value) for value in values]
    row = next((row for row, size in enumerate(sizes) if size != sizes[0]), None)
    if row is not None:
        raise InputError(
            f"{name}: {column} has a value of shape {sizes[row] or ()} in row {row}, and one of "
            f"shape {sizes[0] or ()} in row 0; all must be of one size."
        )
    try:
        return np.array([np.nan if value is None else value for value in values], np.float64)
    except (TypeError, ValueError):
        pass
    for row, value in enumerate(values):
        try:
            np.asarray(value, np.float64)
        except (TypeError, ValueError) as error:
            raise InputError(
                f"{name}: {column} has {value!r:.60} in row {row}; it must be a number or a list "
                "of numbers."
            ) from error
    raise InputError(f"{name}: {column} has type {array.dtype}; it must hold numbers.")


def _is_scalar(value: Any) -> bool:
    return value is None or isinstance(value, (str, bytes)) or np.isscalar(value)
