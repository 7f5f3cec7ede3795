"""The Python and gin of docs/data.md run as they stand, on logs as it describes them."""

import os
import re

import gin
import numpy as np
import pytest

import fbrc_agent
from fbrc_agent.datasets import preprocessing
from tests.datasets import episodes_test
from tests.helpers import logs

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
minari = pytest.importorskip("minari")
pd = pytest.importorskip("pandas")
pytest.importorskip("pyarrow")


def blocks(language):
    with open(os.path.join(ROOT, "docs/data.md"), encoding="utf-8") as file:
        return re.findall(rf"```{language}\n(.*?)```", file.read(), re.DOTALL)


@pytest.fixture(name="folder")
def _folder(tmp_path, monkeypatch):
    """log.csv, logs/*.csv, lerobot/ and a Minari data set, each of the same three episodes."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "minari"))
    columns = logs.columns(logs.make_episodes())
    frame = pd.DataFrame({f"state_{i}": columns["observations"][:, i] for i in range(3)})
    frame["force"], frame["torque"] = columns["actions"].T
    frame["reward"], frame["failed"] = columns["rewards"], columns["terminals"]
    frame["run"] = columns["episodes"]
    for folder in ("logs", "lerobot/data/chunk-000"):
        os.makedirs(folder)
    for name in ("log.csv", "logs/0.csv", "logs/1.csv"):
        frame.to_csv(name, index=False, float_format="%.9g")
    table = {
        "observation.state": list(columns["observations"]),
        "action": list(columns["actions"]),
        "next.reward": columns["rewards"],
        "next.done": columns["terminals"],
        "episode_index": columns["episodes"],
    }
    pd.DataFrame(table).to_parquet("lerobot/data/chunk-000/file-000.parquet")
    episodes_test.create(minari, logs.make_episodes(), name="mine/log-v0")
    return tmp_path


def test_the_python_blocks(folder, capsys):
    names = {}
    expected = logs.without_last_observations(logs.make_episodes())
    for code in blocks("python"):
        exec(compile(code, "docs/data.md", "exec"), names)
        if "log.csv" in code or "lerobot" in code:
            logs.assert_same(names["data"], expected, (3, 3, 1))
    logs.assert_same(names["data"], logs.transitions(logs.make_episodes()))
    assert capsys.readouterr().out.startswith("7 of 9 rows, 3 episodes\n")


def test_the_gin_block(folder):
    code, _ = blocks("gin")
    gin.clear_config()
    try:
        gin.parse_config(code.replace("'gin/", f"'{ROOT}/gin/"))
        data = fbrc_agent.load_dataset(gin.query_parameter("%DATA"))
    finally:
        gin.clear_config()
    assert (data.num_transitions, data.num_rows) == (14, 18)
    np.testing.assert_array_equal(data.action_maximum, [2, 2])


def test_the_gin_block_of_preprocessing():
    _, code = blocks("gin")
    gin.clear_config()
    try:
        gin.parse_config(code.replace("'gin/", f"'{ROOT}/gin/"))
        data = preprocessing.preprocess(fbrc_agent.load_dataset(logs.columns(logs.make_episodes())))
    finally:
        gin.clear_config()
    np.testing.assert_allclose(data.observations.mean(axis=0), 0.0, atol=1e-5)


def test_every_kind_of_finding_is_explained():
    from fbrc_agent.datasets import inspection

    with open(os.path.join(ROOT, "docs/data.md"), encoding="utf-8") as file:
        text = file.read()
    assert [kind for kind in inspection.SENTENCES if f"`{kind}`" not in text] == []
