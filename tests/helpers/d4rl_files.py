"""Small files in D4RL's layout."""

import h5py
import numpy as np


def make_columns(terminal_rows=(), timeout_rows=(), num_rows=10, seed=0, dtype=np.float32):
    """Rows of random numbers, terminals and time limits where asked for."""
    random = np.random.default_rng(seed)
    rows = np.arange(num_rows)
    return {
        "observations": random.normal(size=(num_rows, 3)).astype(dtype),
        "actions": random.uniform(-1, 1, size=(num_rows, 2)).astype(dtype),
        "rewards": random.normal(size=num_rows).astype(dtype),
        "terminals": np.isin(rows, terminal_rows),
        "timeouts": np.isin(rows, timeout_rows),
    }


def write(path, columns, attributes=()):
    with h5py.File(path, "w") as file:
        for key, value in columns.items():
            file[key] = value
        file.attrs.update(attributes)
    return str(path)
