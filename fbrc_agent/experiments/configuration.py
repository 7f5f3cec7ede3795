"""gin configurations of runs, beside the one that is in force."""

import logging
import re
from collections.abc import Sequence

import gin

# Arguments of `train` that make a run what it is; numbers of updates and intervals may change.
_IDENTITY = {f"train.{name}" for name in ("algorithm", "task", "data", "seed", "batch_size")}


def text() -> str:
    """Returns the configuration in force, each binding on one line."""
    return gin.config_str(max_line_length=100_000)


def parse(gin_file: str, bindings: Sequence[str]) -> None:
    """Parses a gin file and bindings after it, beside what is in force."""
    logging.disable(logging.ERROR)  # gin logs one for each place where the file is not.
    try:
        with gin.unlock_config():
            gin.parse_config_files_and_bindings([gin_file], bindings, finalize_config=False)
    finally:
        logging.disable(logging.NOTSET)


def of_run(gin_file: str, bindings: Sequence[str]) -> str:
    """Returns the text of another configuration; the one in force stays."""
    kept = text()
    with gin.unlock_config():
        try:
            gin.clear_config()
            parse(gin_file, bindings)
            return text()
        finally:
            gin.clear_config()
            gin.parse_config(kept)


def settings(config: str) -> dict[str, str]:
    """Returns the bindings by name that make a run what it is, of a text that gin wrote."""
    lines = [line for line in config.splitlines() if " = " in line and not line.startswith("#")]
    bindings = dict(line.split(" = ", 1) for line in lines)
    others = {name for name in bindings if name.startswith("train.")} - _IDENTITY
    others |= {macro for name in others for macro in re.findall(r"%(\w+)", bindings[name])}
    return {name: value for name, value in bindings.items() if name not in others}
