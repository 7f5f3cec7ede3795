"""Downloads, from a server on this machine."""

import contextlib
import http.server
import os
import resource
import threading

import h5py
import numpy as np
import pytest

from fbrc_agent.datasets import download
from fbrc_agent.environments import tasks
from fbrc_agent.utils.errors import InputError


@pytest.fixture
def hdf5_bytes(tmp_path):
    path = tmp_path / "original"
    with h5py.File(path, "w") as file:
        file["rewards"] = np.arange(1000.0)
    content = path.read_bytes()
    path.unlink()
    return content


@contextlib.contextmanager
def serve(body, status=200, announced_length=None, location=None):
    """Yields (address of a file, list of the requests)."""
    requests = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):  # noqa: N802
            requests.append(self.path)
            self.send_response(status)
            if location:
                self.send_header("Location", location)
            self.send_header(
                "Content-Length", str(len(body) if announced_length is None else announced_length)
            )
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *args):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/data/some-v2.hdf5", requests
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch):
    monkeypatch.setenv("no_proxy", "127.0.0.1")


def make_task(url):
    return tasks.Task("some-v2", None, url, None)


def test_download_stores_the_body_under_its_name(tmp_path, hdf5_bytes):
    cache_dir = tmp_path / "new" / "cache"
    with serve(hdf5_bytes) as (url, _):
        path = download.download(make_task(url), str(cache_dir))
    assert path == str(cache_dir / "some-v2.hdf5")
    assert (cache_dir / "some-v2.hdf5").read_bytes() == hdf5_bytes
    assert os.listdir(cache_dir) == ["some-v2.hdf5"]


def test_download_uses_the_cache(tmp_path, hdf5_bytes):
    with serve(hdf5_bytes) as (url, requests):
        first = download.download(make_task(url), str(tmp_path))
        assert download.download(make_task(url), str(tmp_path)) == first
    assert requests == ["/data/some-v2.hdf5"]


def test_download_replaces_a_truncated_file_in_the_cache(tmp_path, hdf5_bytes):
    (tmp_path / "some-v2.hdf5").write_bytes(hdf5_bytes[:-100])
    with serve(hdf5_bytes) as (url, _):
        download.download(make_task(url), str(tmp_path))
    assert (tmp_path / "some-v2.hdf5").read_bytes() == hdf5_bytes


@pytest.mark.parametrize("variable", ["FBRC_DATA_DIR", "D4RL_DATASET_DIR"])
def test_cache_directory_comes_from_the_environment(monkeypatch, tmp_path, hdf5_bytes, variable):
    monkeypatch.delenv("FBRC_DATA_DIR", raising=False)
    monkeypatch.delenv("D4RL_DATASET_DIR", raising=False)
    monkeypatch.setenv(variable, str(tmp_path))
    with serve(hdf5_bytes) as (url, _):
        assert download.download(make_task(url)) == str(tmp_path / "some-v2.hdf5")


def test_truncated_body_is_an_input_error(tmp_path, hdf5_bytes):
    length = len(hdf5_bytes)
    with serve(hdf5_bytes[:-100], announced_length=length) as (url, _):
        with pytest.raises(InputError, match=f"{url}.*{length - 100} of {length} bytes.*DATA=path"):
            download.download(make_task(url), str(tmp_path))
    assert os.listdir(tmp_path) == []


def test_http_error_is_an_input_error(tmp_path):
    with serve(b"", status=404) as (url, _):
        with pytest.raises(InputError, match=f"{url}.*404.*DATA=path"):
            download.download(make_task(url), str(tmp_path))
    assert os.listdir(tmp_path) == []


def test_refused_connection_is_an_input_error(tmp_path):
    with serve(b"") as (url, _):
        pass
    with pytest.raises(InputError, match=f"{url}.*refused.*DATA=path"):
        download.download(make_task(url), str(tmp_path))
    assert os.listdir(tmp_path) == []


def test_body_that_is_not_hdf5_is_an_input_error(tmp_path):
    with serve(b"<html>maintenance</html>") as (url, _):
        with pytest.raises(InputError, match=f"{url}.*not an HDF5 file.*DATA=path"):
            download.download(make_task(url), str(tmp_path))
    assert os.listdir(tmp_path) == []


def test_redirect_to_another_scheme_is_refused(tmp_path):
    with serve(b"", status=302, location="file:///etc/hostname") as (url, _):
        with pytest.raises(InputError, match="file:"):
            download.download(make_task(url), str(tmp_path))
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize(
    "url", ["file:///etc/hostname", "ftp://example.org/some-v2.hdf5", "http://example.org/"]
)
def test_only_web_addresses_of_files_are_downloaded(tmp_path, url):
    with pytest.raises(InputError, match=f"{url}.* is not an http or https address"):
        download.download(make_task(url), str(tmp_path))


def test_task_without_data_is_an_input_error():
    with pytest.raises(InputError, match="Hopper-v4.*DATA=path"):
        download.download(tasks.get_task("Hopper-v4"))


def test_cache_that_cannot_be_written_is_an_input_error(tmp_path, hdf5_bytes):
    (tmp_path / "file").write_text("")
    with serve(hdf5_bytes) as (url, _):
        with pytest.raises(InputError, match="FBRC_DATA_DIR"):
            download.download(make_task(url), str(tmp_path / "file" / "cache"))


def test_full_disk_is_an_input_error_about_the_disk(tmp_path, hdf5_bytes):
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, limits[1]))
    try:
        with (
            serve(hdf5_bytes) as (url, _),
            pytest.raises(InputError, match="Cannot write.*DATA_DIR"),
        ):
            download.download(make_task(url), str(tmp_path))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert os.listdir(tmp_path) == []
