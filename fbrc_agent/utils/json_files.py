"""JSON files: atomic writes, and reads that check what the file must hold."""

import json
from collections.abc import Sequence
from typing import Any, Optional

from fbrc_agent.utils import atomic_files
from fbrc_agent.utils.errors import InputError


def write_json(path: str, content: Any) -> None:
    """Writes a JSON file."""
    atomic_files.write_text(path, json.dumps(content, indent=2, allow_nan=False) + "\n")


def read_json(path: str, entries: Sequence[str] = ()) -> Optional[Any]:
    """Returns the content of a JSON file; None if there is no such file.

    Args:
      path: Name of the file.
      entries: What it must hold, such as "data.checksum".

    Raises:
      InputError: If it is not JSON, or lacks an entry.
    """
    try:
        with open(path, encoding="utf-8") as file:
            content = json.load(file)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except ValueError as error:
        raise InputError(
            f"{path} is not the JSON that a run writes ({error}); restore it, or take another "
            "directory."
        ) from error
    for entry in entries:
        value = content
        for key in entry.split("."):
            if not isinstance(value, dict) or key not in value:
                raise InputError(
                    f"{path} is not what a run writes: it has no entry '{entry}'; restore it, or "
                    "take another directory."
                )
            value = value[key]
    return content
