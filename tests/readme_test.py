"""The README's Python runs as it stands, with fewer updates."""

import re
import subprocess
import sys

from tests.helpers import tiny_runs


def python_block(heading):
    text = (tiny_runs.ROOT / "README.md").read_text(encoding="utf-8")
    section = text.split(f"## {heading}\n")[1].split("\n## ")[0]
    return re.search(r"```python\n(.*?)```", section, re.DOTALL).group(1)


def run(code, directory):
    """Runs code as one pastes it: in a new process, in which nothing is imported yet."""
    environment = tiny_runs.fresh_environment(PYTHONPATH=str(tiny_runs.ROOT))
    subprocess.run([sys.executable, "-c", code], cwd=directory, env=environment, check=True)


def test_training_in_one_call(tmp_path):
    code = python_block("Your own data")
    assert "3000" in code and "8000" in code
    shortened = code.replace("3000", "2").replace("8000", "2")
    run(shortened.replace('= 2"]', '= 2", "NUM_EVAL_EPISODES = 1"]'), tmp_path)


def test_training_in_python_and_serving(tmp_path):
    code = python_block("In Python")
    assert "3000" in code and "8000" in code
    run(code.replace("3000", "2").replace("8000", "2"), tmp_path)
    serving = python_block("Export and serve")
    serving = serving.replace("runs/quickstart/policies/greedy/8000", "models/pendulum/1")
    run(serving + "\nassert action.shape == (1, 1)", tmp_path)
