"""Experiments, one function each: those of the paper (Kostrikov et al. 2021)."""

import importlib
import os
from typing import TYPE_CHECKING, Callable, NamedTuple

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


class Experiment(NamedTuple):
    """An experiment.

    Attributes:
      name: Its name on the command line and of its files.
      function: `function(root_dir, quick)` runs it; root_dir is for what it keeps beside the
        report, such as runs, and quick asks for the setting that takes minutes on 2 cores.
    """

    name: str
    function: Callable[[str, bool], "Report"]


def get(name: str) -> Experiment:
    """Returns an experiment by its name.

    Raises:
      InputError: If there is none of this name.
    """
    if name not in EXPERIMENTS:
        raise InputError(
            f"There is no experiment '{name}'; it must be one of {', '.join(EXPERIMENTS)}."
        )
    module = importlib.import_module(f"{__name__}.{EXPERIMENTS[name]}")
    return Experiment(name, getattr(module, f"run_{name}"))


def run(experiment: Experiment, root_dir: str, quick: bool) -> str:
    """Runs an experiment and writes its report.

    Args:
      experiment: What `get` returned.
      root_dir: Directory to write; created if it is missing.
      quick: Whether to take the quick setting instead of the full one.

    Returns:
      The text of the report and the paths of its files, for the terminal.
    """
    os.makedirs(root_dir, exist_ok=True)  # A directory that cannot be created fails at once.
    report = experiment.function(root_dir, quick)
    paths = report.write(root_dir)
    return "\n".join([report.title, "", report.text.strip(), "", *paths])
