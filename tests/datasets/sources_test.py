"""What a data source names."""

import pytest

from fbrc_agent.datasets import download, sources
from fbrc_agent.utils.errors import InputError
from tests.helpers import d4rl_files


def test_source_is_kept_as_given(tmp_path):
    path = d4rl_files.write(tmp_path / "file.hdf5", d4rl_files.make_columns())
    assert sources.load_dataset(path).source == path


def test_task_id_is_downloaded(tmp_path, monkeypatch):
    path = d4rl_files.write(tmp_path / "downloaded.hdf5", d4rl_files.make_columns())
    tasks = []
    monkeypatch.setattr(download, "download", lambda task: tasks.append(task.id) or path)
    data = sources.load_dataset("hopper-medium-v2")
    assert tasks == ["hopper-medium-v2"]
    assert data.source == "hopper-medium-v2"
    assert data.num_transitions == 9


def test_embedded_file_is_found_beside_the_module(tmp_path, monkeypatch):
    (tmp_path / "embedded").mkdir()
    d4rl_files.write(tmp_path / "embedded" / "small.hdf5", d4rl_files.make_columns())
    monkeypatch.setattr(sources, "__file__", str(tmp_path / "sources.py"))
    assert sources.load_dataset("embedded:small").num_transitions == 9
    with pytest.raises(InputError, match="embedded:large.*small"):
        sources.load_dataset("embedded:large")


@pytest.mark.parametrize(
    "source, message",
    [
        ("no/such/file.hdf5", "no/such/file.hdf5: there is no such file"),
        ("nosuchfile.hdf5", "nosuchfile.hdf5: there is no such file"),
        ("hoper-medium-v2", "hoper-medium-v2.*hopper-medium-v2"),
        ("Hopper-v4", "Hopper-v4.*DATA=path"),
        ("", "data source"),
        (None, "None"),
    ],
)
def test_source_that_does_not_exist_is_an_input_error(source, message):
    with pytest.raises(InputError, match=message):
        sources.load_dataset(source)


def test_directory_is_an_input_error(tmp_path):
    with pytest.raises(InputError, match="is a directory"):
        sources.load_dataset(str(tmp_path))
