"""Libraries that only some formats need."""

import importlib
from typing import Any

from fbrc_agent.utils.errors import InputError


def require(module: str, extra: str, what: str) -> Any:
    """Returns a module; refuses `what` with the command that installs it where it is missing."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise InputError(
            f"{what} needs {module.split('.')[0]}, which cannot be imported ({error}); install it: "
            f"pip install 'fbrc_agent[{extra}]'."
        ) from error
