"""TF-Agents on later releases of TensorFlow and NumPy."""

import importlib.util
import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf
from tf_agents.specs import tensor_spec

from fbrc_agent import networks  # noqa: F401 (mends TF-Agents)
from tests.helpers import tiny_runs

has_keras_3 = pytest.mark.skipif(
    importlib.util.find_spec("tf_keras") is None, reason="this TensorFlow has Keras 2 alone"
)


@has_keras_3
@pytest.mark.parametrize("name", ["FbrcAgent", "BehaviorAgent", "create_actor_network"])
def test_keras_3_is_refused_with_the_remedy(name):
    code = (
        "import tensorflow, fbrc_agent\n"
        f"try: fbrc_agent.{name}\n"
        "except fbrc_agent.InputError as error: print(error)"
    )
    completed = subprocess.run(
        [sys.executable, "-c", code],
        env=tiny_runs.fresh_environment(),
        capture_output=True,
        text=True,
        check=True,
    )
    assert completed.stdout.startswith("tf.keras is Keras 3.")
    assert completed.stdout.endswith(
        "; TF-Agents needs Keras 2, so `import fbrc_agent` must come before `import tensorflow`, "
        "or the environment variable TF_USE_LEGACY_KERAS must be 1.\n"
    )


@has_keras_3
def test_a_command_refuses_keras_3():
    completed = subprocess.run(
        [sys.executable, "-c", "from fbrc_agent import cli; raise SystemExit(cli.train())"],
        env=tiny_runs.fresh_environment(TF_USE_LEGACY_KERAS="0"),
        capture_output=True,
        text=True,
        check=False,
    )
    assert completed.returncode == 2
    assert completed.stderr.splitlines()[-1].startswith("train: tf.keras is Keras 3.")


@pytest.mark.parametrize("low, high", [(0, 255), (250, 255), (3, 5)])
def test_a_spec_of_bytes_is_sampled_within_its_bounds(low, high):
    spec = tensor_spec.BoundedTensorSpec([], tf.uint8, low, high)
    sample = tensor_spec.sample_spec_nest(spec, seed=1, outer_dims=(10_000,))
    assert sample.dtype == tf.uint8
    assert set(sample.numpy()) == set(np.arange(low, high + 1))
