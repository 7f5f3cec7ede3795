"""The README's Python runs as it stands, with fewer updates."""

import os
import re

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))


def python_block(heading):
    with open(os.path.join(ROOT, "README.md"), encoding="utf-8") as file:
        section = file.read().split(f"## {heading}\n")[1].split("\n## ")[0]
    return re.search(r"```python\n(.*?)```", section, re.DOTALL).group(1)


def test_training_in_python_and_serving(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code = python_block("In Python")
    assert "3000" in code and "8000" in code
    exec(compile(code.replace("3000", "2").replace("8000", "2"), "README.md", "exec"), {})
    serving = python_block("Export and serve")
    serving = serving.replace("runs/quickstart/policies/greedy/8000", "models/pendulum/1")
    names = {}
    exec(compile(serving, "README.md", "exec"), names)
    assert names["action"].shape == (1, 1)
