"""Experiments, one function each: those of the paper (Kostrikov et al. 2021)."""

import importlib
import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Callable

from fbrc_agent.utils.errors import InputError

if TYPE_CHECKING:
    from fbrc_agent.experiments.report import Report

# Each experiment's module here, which has its function `run_<name>`. The modules import TensorFlow,
# which the names alone do not need.
EXPERIMENTS = {
    "bandit": "bandit",
    "lambda": "runs",
    "norms": "runs",
    "ablation": "runs",
    "density": "runs",
    "speed": "speed",
}


def get(name: str) -> Callable[[str, bool], "Report"]:
    """Returns an experiment by its name: a function of the directory to keep runs in, and `quick`.

    Raises:
      InputError: If there is none of this name.
    """
    if name not in EXPERIMENTS:
        raise InputError(
            f"There is no experiment '{name}'; it must be one of {', '.join(EXPERIMENTS)}."
        )
    module = importlib.import_module(f"{__name__}.{EXPERIMENTS[name]}")
    return getattr(module, f"run_{name}")


def run(
    experiment: Callable[[str, bool], "Report"],
    root_dir: str,
    quick: bool,
    arguments: Sequence[str],
) -> str:
    """Runs an experiment and writes its report.

    Args:
      experiment: What `get` returned.
      root_dir: Directory to write; created if it is missing.
      quick: Whether to take the setting of minutes on 2 cores instead of the full one.
      arguments: Those of `bin/reproduce` that run it again, for the report.

    Returns:
      The text of the report and the paths of its files, for the terminal.
    """
    os.makedirs(root_dir, exist_ok=True)  # A directory that cannot be created fails at once.
    report = experiment(root_dir, quick)
    paths = report.write(root_dir, arguments)
    return "\n".join([report.title, "", report.text.strip(), "", *paths])
