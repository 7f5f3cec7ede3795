"""Versions and revision that a result was made with."""

import contextlib
import importlib.metadata
import os
import platform
import subprocess
from typing import Optional

import tensorflow as tf
import tensorflow_probability as tfp
import tf_agents

import fbrc_agent


def versions() -> dict[str, str]:
    """Returns the versions of Python and of the packages that compute and simulate."""
    found = {
        "python": platform.python_version(),
        "tensorflow": tf.__version__,
        "tensorflow_probability": tfp.__version__,
        "tf_agents": tf_agents.__version__,
        "fbrc_agent": fbrc_agent.__version__,
    }
    for name in ("gymnasium", "mujoco"):
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found[name] = importlib.metadata.version(name)
    return found


def git_revision() -> Optional[str]:
    """Returns the commit, '-dirty' if files differ from it; None outside of a clone."""
    root = os.path.dirname(os.path.dirname(os.path.abspath(fbrc_agent.__file__)))
    if not os.path.exists(os.path.join(root, ".git")):
        return None
    command = ["git", "-C", root, "describe", "--always", "--dirty", "--abbrev=40"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None
