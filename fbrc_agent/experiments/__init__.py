"""Experiments, one function each: those of the paper (Kostrikov et al. 2021)."""

import importlib
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
# What gin has to parse before the bindings of the command line.
GIN_FILES = {"speed": ["fbrc.gin"]}


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
