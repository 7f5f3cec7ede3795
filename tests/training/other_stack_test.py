"""This stack and another: each acts with the other's policies and resumes the other's runs.

FBRC_OTHER_PYTHON names the Python of an environment of the other stack; .ci/run gives it.
"""

import os
import shutil
import subprocess
import sys

import numpy as np
import pytest

from fbrc_agent.training import run_log
from tests.helpers import contract, tiny_runs

PYTHONS = {"this": sys.executable, "other": os.environ.get("FBRC_OTHER_PYTHON")}

pytestmark = pytest.mark.skipif(
    not PYTHONS["other"], reason="FBRC_OTHER_PYTHON names no Python of the other stack"
)


def run(stack, *arguments):
    done = subprocess.run(
        [PYTHONS[stack], *map(str, arguments)],
        cwd=tiny_runs.ROOT,
        env=tiny_runs.fresh_environment(TF_CPP_MIN_LOG_LEVEL="3"),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-4000:]


def train(stack, root_dir, data, steps):
    run(stack, "-m", "fbrc_agent.cli", *tiny_runs.train_arguments(root_dir, data, STEPS=steps))


@pytest.fixture(scope="module", params=PYTHONS)
def trained(request, tmp_path_factory, pendulum_data):
    """The directory of a run that one of the stacks has trained."""
    root_dir = tmp_path_factory.mktemp(request.param) / "run"
    train(request.param, root_dir, pendulum_data, 20)
    return root_dir


def test_both_act_alike(trained, tmp_path):
    np.save(tmp_path / "observations.npy", contract.OBSERVATIONS)
    policy = trained / "policies" / "greedy" / "20"
    for stack in PYTHONS:
        paths = [policy, tmp_path / "observations.npy", tmp_path / f"{stack}.npy"]
        run(stack, "-c", contract.SERVE, *paths)
    this, other = (np.load(tmp_path / f"{stack}.npy") for stack in PYTHONS)
    assert np.ptp(this) > 1e-3
    np.testing.assert_allclose(this, other, rtol=0, atol=1e-6)


def test_both_resume(trained, tmp_path, pendulum_data):
    """Weights, optimizers' slots and returns agree but for rounding."""
    for stack in PYTHONS:
        shutil.copytree(trained, tmp_path / stack)
        train(stack, tmp_path / stack, pendulum_data, 30)
    this, other = (contract.checkpoint_tensors(tmp_path / stack) for stack in PYTHONS)
    assert this.keys() == other.keys()
    for name, tensor in this.items():
        np.testing.assert_allclose(tensor, other[name], rtol=1e-3, atol=1e-5, err_msg=str(name))
    this, other = (run_log.read_metrics(str(tmp_path / s), "fbrc")[-1] for s in PYTHONS)
    assert this["step"] == other["step"] == 30
    np.testing.assert_allclose(this["returns"], other["returns"], rtol=1e-4)
