"""What several test modules share: one tiny run takes most of a minute of tracing."""

import pytest

from tests.helpers import tiny_runs

# The modules that take longest go first, so that parallel processes end at about the same time.
_LONG = ("strategy_test", "trainer_test", "determinism_test", "numerics_test", "runs_test")


def pytest_collection_modifyitems(items):
    items.sort(key=lambda item: item.path.stem not in _LONG)


@pytest.fixture(scope="session")
def pendulum_data(tmp_path_factory):
    """A small HDF5 file of random actions on Pendulum-v1."""
    path = tmp_path_factory.mktemp("data") / "pendulum.hdf5"
    tiny_runs.write_pendulum(path)
    return path


@pytest.fixture(scope="session")
def tiny_run(tmp_path_factory, pendulum_data):
    """The directory of a complete run, which tests only read."""
    root_dir = tmp_path_factory.mktemp("run") / "tiny"
    assert tiny_runs.train(root_dir, pendulum_data) == 0
    return root_dir
