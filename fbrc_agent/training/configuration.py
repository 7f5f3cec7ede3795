"""Gin files and bindings, and the macros that all algorithms' files have in common."""

import contextlib
import logging
import os
import sys
import tokenize
from collections.abc import Iterator, Sequence
from typing import Optional

from fbrc_agent.utils import os_errors
from fbrc_agent.utils.errors import InputError

# An open quote or parenthesis is a TokenError.
_MISTAKES = (OSError, ValueError, SyntaxError, TypeError, ImportError, tokenize.TokenError)
_PACKAGE = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))


@contextlib.contextmanager
def without_log(level: int) -> Iterator[None]:
    """Keeps records of a level and below out of all logs."""
    before = logging.root.manager.disable
    logging.disable(level)
    try:
        yield
    finally:
        logging.disable(before)


def parse(files: Sequence[str], bindings: Sequence[str]) -> None:
    """Parses gin files and bindings.

    What the files import is looked for in the working directory and beside them too, so that an
    algorithm of one's own need not be installed.

    Args:
      files: Names of gin files; those of this package may do without their directory.
      bindings: Bindings, which come after the files.

    Raises:
      InputError: If there is a mistake in them.
    """
    import gin

    # gin/ is in a clone of the repository, or where pip puts it.
    for parent in (os.path.dirname(_PACKAGE), os.path.join(sys.prefix, "share", "fbrc_agent")):
        gin.add_config_file_search_path(os.path.join(parent, "gin"))
    for directory in [os.getcwd(), *(os.path.dirname(os.path.abspath(file)) for file in files)]:
        if directory not in sys.path:
            sys.path.append(directory)  # Last: it hides no installed module.
    # gin logs an error for every place where a file is not, also if it is in a later one; where it
    # finds none it raises.
    source = f"gin configuration ({', '.join(files)})" if files else "--gin_bindings"
    try:
        with without_log(logging.ERROR):
            gin.parse_config_files_and_bindings(list(files), list(bindings))
    except RecursionError as error:
        raise InputError(f"{source}: a file or macro includes itself.") from error
    except _MISTAKES as error:
        raise InputError(f"{source}: {_gin_reason(error, bindings)}.") from error


def _gin_reason(error: Exception, bindings: Sequence[str]) -> str:
    if isinstance(error, tokenize.TokenError):
        message, (line, _) = error.args
        return f"{message.split(' (')[0]} in line {line}"
    if not isinstance(error, SyntaxError):
        # Of a missing macro gin shows the configuration, below the first line.
        return str(os_errors.original(error)).split("\n")[0].rstrip(" .:")
    line = error.lineno or 0
    if error.filename:
        return f"{error.msg.rstrip('.')} in {error.filename}, line {line}"
    # gin takes the bindings as lines of one text, and knows the text of few mistakes.
    text = bindings[line - 1] if 0 < line <= len(bindings) else error.text
    return f"{error.msg.rstrip('.')} in the binding '{text}'"


def common(
    task: Optional[str], data: Optional[str], steps: Optional[int], seed: Optional[int]
) -> list[str]:
    """Returns bindings of the macros that every algorithm's file has; none for None.

    Data without a task is of no task.
    """
    values = {"DATA": data, "TASK": task, "STEPS": steps, "SEED": seed}
    bindings = [f"{name} = {value!r}" for name, value in values.items() if value is not None]
    return ["TASK = None", *bindings] if data is not None and task is None else bindings
