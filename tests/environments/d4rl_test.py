import contextlib
import http.server
import importlib.util
import os
import subprocess
import sys
import threading

import h5py
import numpy as np
import pytest

from fbrc_agent.environments import d4rl
from fbrc_agent.utils.errors import InputError


def test_locomotion_task_has_d4rl_file_scores_and_gymnasium_environment():
    task = d4rl.get_task("hopper-medium-v2")
    assert task.id == "hopper-medium-v2"
    assert task.environment == "Hopper-v4"
    assert task.data_url == (
        "http://rail.eecs.berkeley.edu/datasets/offline_rl/gym_mujoco_v2/hopper_medium-v2.hdf5"
    )
    # Fu et al. 2020, table of reference scores.
    assert task.reference_scores == (-20.272305, 3234.3)


@pytest.mark.parametrize(
    "task_id, environment",
    [
        ("halfcheetah-medium-expert-v0", "HalfCheetah-v4"),
        ("walker2d-full-replay-v2", "Walker2d-v4"),
        ("hopper-random-v1", "Hopper-v4"),
        ("ant-medium-v2", None),
        ("antmaze-umaze-v2", None),
        ("bullet-hopper-medium-v0", None),
        ("pen-human-v1", None),
    ],
)
def test_only_locomotion_tasks_have_an_environment(task_id, environment):
    task = d4rl.get_task(task_id)
    assert task.environment == environment
    assert task.data_url.endswith(".hdf5")


@pytest.mark.parametrize(
    "environment, reference_scores",
    [
        ("Hopper-v4", (-20.272305, 3234.3)),
        ("HalfCheetah-v4", (-280.178953, 12135.0)),
        ("Walker2d-v4", (1.629008, 4592.3)),
    ],
)
def test_gymnasium_id_has_the_scores_of_its_robot_and_no_file(environment, reference_scores):
    task = d4rl.get_task(environment)
    assert task == d4rl.Task(environment, environment, None, reference_scores)


def test_pendulum_has_its_own_scores():
    random_score, expert_score = d4rl.get_task("Pendulum-v1").reference_scores
    assert random_score < expert_score < 0


@pytest.mark.parametrize(
    "task_id, suggestion",
    [
        ("hoper-medium-v2", "hopper-medium-v2"),
        ("hopper-v4", "Hopper-v4"),
        ("zzz", "Pendulum-v1"),
    ],
)
def test_unknown_task_is_named_with_a_suggestion(task_id, suggestion):
    with pytest.raises(InputError, match=f"'{task_id}'.*{suggestion}"):
        d4rl.get_task(task_id)


def test_missing_d4rl_package_is_an_input_error(monkeypatch):
    d4rl._d4rl_infos.cache_clear()
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(InputError, match="pip install d4rl"):
        d4rl.get_task("hopper-medium-v2")


def test_import_is_light():
    code = (
        "import sys; from fbrc_agent.environments import d4rl; d4rl.get_task('hopper-medium-v2');"
        "print([name for name in ('d4rl', 'gym', 'gymnasium', 'mujoco_py', 'tensorflow')"
        " if name in sys.modules])"
    )
    output = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)
    assert output.stdout.decode().strip() == "[]"


def test_normalized_score_is_0_at_random_and_100_at_expert():
    task = d4rl.Task("task", None, None, (-20.0, 180.0))
    np.testing.assert_allclose(
        task.normalized_score([[-20.0, 180.0], [80.0, 280.0]]), [[0.0, 100.0], [50.0, 150.0]]
    )
    assert task.normalized_score(80) == 50.0


def test_normalized_score_without_references_is_an_input_error():
    with pytest.raises(InputError, match="maze2d-eval-umaze-v1"):
        d4rl.get_task("maze2d-eval-umaze-v1").normalized_score(1.0)


# Downloads: from a server on this machine.


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
    return d4rl.Task("some-v2", None, url, None)


def test_download_stores_the_body_under_its_name(tmp_path, hdf5_bytes):
    cache_dir = tmp_path / "new" / "cache"
    with serve(hdf5_bytes) as (url, _):
        path = d4rl.download(make_task(url), str(cache_dir))
    assert path == str(cache_dir / "some-v2.hdf5")
    assert (cache_dir / "some-v2.hdf5").read_bytes() == hdf5_bytes
    assert os.listdir(cache_dir) == ["some-v2.hdf5"]


def test_download_uses_the_cache(tmp_path, hdf5_bytes):
    with serve(hdf5_bytes) as (url, requests):
        first = d4rl.download(make_task(url), str(tmp_path))
        assert d4rl.download(make_task(url), str(tmp_path)) == first
    assert requests == ["/data/some-v2.hdf5"]


def test_download_replaces_a_truncated_file_in_the_cache(tmp_path, hdf5_bytes):
    (tmp_path / "some-v2.hdf5").write_bytes(hdf5_bytes[:-100])
    with serve(hdf5_bytes) as (url, _):
        d4rl.download(make_task(url), str(tmp_path))
    assert (tmp_path / "some-v2.hdf5").read_bytes() == hdf5_bytes


@pytest.mark.parametrize("variable", ["FBRC_DATA_DIR", "D4RL_DATASET_DIR"])
def test_cache_directory_comes_from_the_environment(monkeypatch, tmp_path, hdf5_bytes, variable):
    monkeypatch.delenv("FBRC_DATA_DIR", raising=False)
    monkeypatch.delenv("D4RL_DATASET_DIR", raising=False)
    monkeypatch.setenv(variable, str(tmp_path))
    with serve(hdf5_bytes) as (url, _):
        assert d4rl.download(make_task(url)) == str(tmp_path / "some-v2.hdf5")


def test_truncated_body_is_an_input_error(tmp_path, hdf5_bytes):
    length = len(hdf5_bytes)
    with serve(hdf5_bytes[:-100], announced_length=length) as (url, _):
        with pytest.raises(InputError, match=f"{url}.*{length - 100} of {length} bytes.*DATA=path"):
            d4rl.download(make_task(url), str(tmp_path))
    assert os.listdir(tmp_path) == []


def test_http_error_is_an_input_error(tmp_path):
    with serve(b"", status=404) as (url, _):
        with pytest.raises(InputError, match=f"{url}.*404.*DATA=path"):
            d4rl.download(make_task(url), str(tmp_path))
    assert os.listdir(tmp_path) == []


def test_refused_connection_is_an_input_error(tmp_path):
    with serve(b"") as (url, _):
        pass
    with pytest.raises(InputError, match=f"{url}.*refused.*DATA=path"):
        d4rl.download(make_task(url), str(tmp_path))
    assert os.listdir(tmp_path) == []


def test_body_that_is_not_hdf5_is_an_input_error(tmp_path):
    with serve(b"<html>maintenance</html>") as (url, _):
        with pytest.raises(InputError, match=f"{url}.*not an HDF5 file.*DATA=path"):
            d4rl.download(make_task(url), str(tmp_path))
    assert os.listdir(tmp_path) == []


def test_redirect_to_another_scheme_is_refused(tmp_path):
    with serve(b"", status=302, location="file:///etc/hostname") as (url, _):
        with pytest.raises(InputError, match="file:"):
            d4rl.download(make_task(url), str(tmp_path))
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize(
    "url", ["file:///etc/hostname", "ftp://example.org/some-v2.hdf5", "http://example.org/"]
)
def test_only_web_addresses_of_files_are_downloaded(tmp_path, url):
    with pytest.raises(InputError, match=f"{url}.* is not an http or https address"):
        d4rl.download(make_task(url), str(tmp_path))


def test_task_without_data_is_an_input_error():
    with pytest.raises(InputError, match="Hopper-v4.*DATA=path"):
        d4rl.download(d4rl.get_task("Hopper-v4"))


def test_cache_that_cannot_be_written_is_an_input_error(tmp_path, hdf5_bytes):
    (tmp_path / "file").write_text("")
    with serve(hdf5_bytes) as (url, _):
        with pytest.raises(InputError, match="FBRC_DATA_DIR"):
            d4rl.download(make_task(url), str(tmp_path / "file" / "cache"))
