"""Clients of an exported policy, each equal to the policy in Python."""

import os
import re
import runpy
import shutil
import subprocess
import sys
import sysconfig

import numpy as np
import pytest
import tensorflow as tf
from tf_agents.policies import greedy_policy
from tf_agents.trajectories import time_step as ts

from fbrc_agent.policies import serving_requests
from tests.helpers import serving_server, tiny_runs

EXAMPLES = tiny_runs.ROOT / "examples" / "serving"
GOOD_ROWS = 10_000
# Rows with one number that is not finite, among the others.
BAD_ROWS = {10: np.nan, 5000: np.inf, 10_002: -np.inf}
ATOL = 1e-6

# Runs a program where of all that made the policy nothing but TensorFlow can be imported.
ALONE = """
import runpy, sys
for name in ["tf_agents", "tensorflow_probability", "gin", "fbrc_agent"]:
    sys.modules[name] = None
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""

PLAIN = """
import sys
import numpy as np, tensorflow as tf
act = tf.saved_model.load(sys.argv[1]).signatures["serving_default"]
actions = {name: act(observation=tf.constant(rows))["action"].numpy()
           for name, rows in np.load(sys.argv[2]).items()}
np.savez(sys.argv[3], **actions)
"""


def run(command, **options):
    """Runs a command of which nothing may go wrong; returns its standard output."""
    environment = dict(os.environ, TF_CPP_MIN_LOG_LEVEL="3")
    result = subprocess.run(command, capture_output=True, env=environment, timeout=300, **options)
    assert result.returncode == 0, result.stderr.decode()
    return result.stdout


@pytest.fixture(scope="module")
def agent():
    return serving_server.make_agent()


@pytest.fixture(scope="module")
def model(tmp_path_factory, agent):
    """The directory of the exported version."""
    return serving_server.export_agent(agent, tmp_path_factory.mktemp("models"))


@pytest.fixture(scope="module")
def observations():
    generator = np.random.default_rng(1)
    shape = [GOOD_ROWS + len(BAD_ROWS), serving_server.OBSERVATION_SIZE]
    rows = generator.normal(size=shape).astype(np.float32)
    for index, value in BAD_ROWS.items():
        rows[index, index % serving_server.OBSERVATION_SIZE] = value
    return rows


@pytest.fixture(scope="module")
def expected(agent, observations):
    """Actions of the policy in Python; NaN for the rows that are not finite."""
    time_step = ts.restart(tf.constant(observations), batch_size=len(observations))
    actions = greedy_policy.GreedyPolicy(agent.policy).action(time_step).action.numpy()
    actions[list(BAD_ROWS)] = np.nan
    good = actions[np.isfinite(actions).all(axis=1)]
    assert good.shape == (GOOD_ROWS, serving_server.ACTION_SIZE)
    assert (np.ptp(good, axis=0) > 0.8 * (serving_server.HIGH - serving_server.LOW)).all()
    return actions


def test_plain_tensorflow(tmp_path, model, observations, expected):
    (tmp_path / "plain.py").write_text(PLAIN)
    np.savez(tmp_path / "in.npz", all=observations, one=observations[:1], none=observations[:0])
    command = [sys.executable, "-c", ALONE, "plain.py", model, "in.npz", "out.npz"]
    run(command, cwd=tmp_path)
    actions = np.load(tmp_path / "out.npz")
    np.testing.assert_allclose(actions["all"], expected, rtol=0, atol=ATOL)
    np.testing.assert_allclose(actions["one"], expected[:1], rtol=0, atol=ATOL)
    assert actions["none"].shape == (0, serving_server.ACTION_SIZE)


def test_saved_model_cli(tmp_path, model, observations, expected):
    np.save(tmp_path / "observations.npy", observations)
    command = [os.path.join(sysconfig.get_path("scripts"), "saved_model_cli"), "run"]
    command += ["--dir", model, "--tag_set", "serve", "--signature_def", "serving_default"]
    command += ["--inputs", "observation=observations.npy", "--outdir", "."]
    run(command, cwd=tmp_path)
    np.testing.assert_allclose(np.load(tmp_path / "action.npy"), expected, rtol=0, atol=ATOL)


# C.


@pytest.fixture(scope="module")
def act_in_c(tmp_path_factory, model):
    """Compiles act.c by the README's command; returns the arguments up to the batch."""
    if shutil.which("gcc") is None:
        pytest.skip("there is no gcc")
    program = str(tmp_path_factory.mktemp("c") / "act")
    (command,) = re.findall(r"^gcc (?:.*\\\n)*.*$", (EXAMPLES / "README.md").read_text(), re.M)
    assert "-o act " in command
    command = command.replace("-o act ", f"-o {program} ") + " -Wall -Wextra -Werror -pedantic"
    run(f"tensorflow={tf.sysconfig.get_lib()}; {command}", shell=True, cwd=tiny_runs.ROOT)
    signature = serving_requests.signatures(model)["serving_default"]
    return [program, model, signature.inputs["observation"].name, signature.outputs["action"].name]


@pytest.mark.parametrize("batch", [[], ["4096"]], ids=["one by one", "in batches"])
def test_c_program(act_in_c, batch, observations, expected):
    output = run([*act_in_c, *batch], input=observations.tobytes())
    actions = np.frombuffer(output, np.float32).reshape(expected.shape)
    np.testing.assert_allclose(actions, expected, rtol=0, atol=ATOL)


@pytest.mark.parametrize(
    ("changes", "stdin", "sentence"),
    [
        ({1: "nowhere"}, b"", "act: nowhere: Could not find SavedModel"),
        ({2: "observation:0"}, b"", "act: observation:0: the model has no such tensor"),
        ({}, b"\0" * 5, "act: stdin: ends within an observation"),
    ],
)
def test_c_program_refuses(act_in_c, changes, stdin, sentence):
    command = [changes.get(index, argument) for index, argument in enumerate(act_in_c)]
    result = subprocess.run(command, input=stdin, capture_output=True, timeout=300)
    assert (result.returncode, result.stdout) == (1, b"")
    assert sentence in result.stderr.decode()


# TFLite, by the lines of docs/serving.md.


def test_tflite(model, observations, expected):
    section = (tiny_runs.ROOT / "docs" / "serving.md").read_text().split("## TFLite\n")[1]
    code = re.search(r"```python\n(.*?)```", section, re.DOTALL).group(1)
    assert "models/halfcheetah/1" in code
    names = {"tf": tf, "observation": observations}
    exec(compile(code.replace("models/halfcheetah/1", model), "serving.md", "exec"), names)
    np.testing.assert_allclose(names["action"], expected, rtol=0, atol=1e-5)
    # Other batch sizes after it, by the same interpreter.
    for rows in (slice(0, 1), slice(5, 15)):
        actions = names["act"](observation=observations[rows])["action"]
        np.testing.assert_allclose(actions, expected[rows], rtol=0, atol=1e-5)


# gRPC.


@pytest.fixture(scope="module")
def address(model):
    with serving_server.serve(model) as address:
        yield address


CLIENT = EXAMPLES / "predict_grpc.py"


def client_arguments(directory, address, signature, inputs):
    """Writes the inputs of the example client; returns its arguments."""
    files = []
    for name, array in inputs.items():
        np.save(directory / f"{name}.npy", array)
        files.append(f"{name}={directory / name}.npy")
    flags = ["--address", address, "--model", serving_server.MODEL, "--signature", signature]
    return [*flags, "--inputs", *files, "--output", str(directory / "outputs.npz")]


def ask(directory, monkeypatch, *arguments):
    """Runs the example client in this process; returns the outputs."""
    monkeypatch.setattr(sys, "argv", ["", *client_arguments(directory, *arguments)])
    runpy.run_path(str(CLIENT), run_name="__main__")
    return np.load(directory / "outputs.npz")


def test_grpc_client(tmp_path, address, observations, expected):
    inputs = {"observation": observations}
    arguments = client_arguments(tmp_path, address, "serving_default", inputs)
    run([sys.executable, "-c", ALONE, str(CLIENT), *arguments])
    actions = np.load(tmp_path / "outputs.npz")["action"]
    np.testing.assert_allclose(actions, expected, rtol=0, atol=ATOL)


def test_grpc_samples_are_functions_of_their_rows(tmp_path, monkeypatch, address, observations):
    """Rows 0 and 2 are alike; row 1 has another observation, row 3 another seed, row 4 a NaN."""
    inputs = {"observation": observations[[0, 1, 0, 0, 10]], "seed": np.array([7, 7, 7, 8, 7])}
    actions = ask(tmp_path, monkeypatch, address, "sample", inputs)["action"]
    np.testing.assert_array_equal(actions[0], actions[2])
    assert (actions[[1, 3]] != actions[0]).any(axis=1).all()
    assert np.isfinite(actions[:4]).all() and np.isnan(actions[4]).all()


def test_grpc_values(tmp_path, monkeypatch, address, agent, observations, expected):
    """Of actions well inside the box: near its faces log mu magnifies a rounding of the action."""
    rows = slice(3, 11)
    middle = (serving_server.LOW + serving_server.HIGH) / 2
    actions = np.float32(middle + (expected[rows] - middle) / 2)
    inputs = {"observation": observations[rows], "action": actions}
    values = ask(tmp_path, monkeypatch, address, "value", inputs)
    assert set(values) == {"q", "log_mu", "offset"}
    for name, value in agent.values(*map(tf.constant, inputs.values())).items():
        expected_values = [*value[:7].numpy(), np.nan]  # Row 10 is bad.
        np.testing.assert_allclose(values[name], expected_values, rtol=1e-5, atol=1e-5)


def test_grpc_empty_batch(tmp_path, monkeypatch, address, observations):
    inputs = {"observation": observations[:0], "seed": np.zeros(0, np.int64)}
    actions = ask(tmp_path, monkeypatch, address, "sample", inputs)["action"]
    assert actions.shape == (0, serving_server.ACTION_SIZE)


@pytest.mark.parametrize(
    ("signature", "seed", "sentence"),
    [
        ("sample", [1.5], "seed is float64 [1]; needed: int64 (None,)."),
        ("sample", [[1]], "seed is int64 [1, 1]; needed: int64 (None,)."),
        (
            "serving_default",
            [1],
            "The inputs are ['observation', 'seed']; needed: ['observation'].",
        ),
        ("greedy", [1], "halfcheetah has no signature greedy."),
    ],
)
def test_grpc_client_refuses(
    tmp_path, monkeypatch, address, observations, signature, seed, sentence
):
    inputs = {"observation": observations[:1], "seed": np.array(seed)}
    with pytest.raises(SystemExit, match=f"^{re.escape(sentence)}$"):
        ask(tmp_path, monkeypatch, address, signature, inputs)
