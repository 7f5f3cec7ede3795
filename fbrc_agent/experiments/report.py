"""Files of an experiment: its numbers, its picture, and a page that shows both."""

import dataclasses
import os
import platform
import re
import shlex
from collections.abc import Mapping, Sequence
from typing import Any

import tensorflow as tf
from matplotlib.figure import Figure

from fbrc_agent.experiments import figures
from fbrc_agent.utils import atomic_files, json_files, provenance


@dataclasses.dataclass(frozen=True)
class Report:
    """The result of an experiment.

    Attributes:
      name: Its name on the command line.
      title: One line.
      numbers: Its measurements as JSON; None stands where a number is not finite.
      figure: The picture.
      text: Its results in Markdown without headings, also printed.
    """

    name: str
    title: str
    numbers: dict[str, Any]
    figure: Figure
    text: str

    def write(self, root_dir: str, arguments: Sequence[str]) -> list[str]:
        """Writes `<name>.json`, `<name>.png` and README.md, each atomically; returns their paths.

        Args:
          root_dir: The directory.
          arguments: Those of `bin/reproduce` that run it again.

        Raises:
          ValueError: If `numbers` has a NaN or an infinity; nothing is written then.
        """
        files = [f"{self.name}.json", f"{self.name}.png", "README.md"]
        numbers, picture, page = (os.path.join(root_dir, file) for file in files)
        json_files.write_json(numbers, self.numbers)
        figures.write_png(picture, self.figure)
        setting = "the quick setting" if "--quick" in arguments else "the full setting"
        if "--gin_bindings" in arguments:
            setting += ", with the values of the command in place"
        paragraphs = [
            f"# {self.title}",
            self.text.strip(),
            f"![{self.title}]({self.name}.png)",
            f"All numbers are in [{self.name}.json]({self.name}.json).",
            f"```\nbin/reproduce {' '.join(map(_quote, arguments))}\n```",
            f"This is {setting}. {sentences(circumstances())}",
        ]
        atomic_files.write_text(page, "\n\n".join(paragraphs) + "\n")
        return [numbers, picture, page]


def _quote(argument: str) -> str:
    """Quotes a word for a shell; a gin binding has single quotes itself, as Python's texts."""
    is_plain = " " in argument and not re.search(r'["$`\\!]', argument)
    return f'"{argument}"' if is_plain else shlex.quote(argument)


def circumstances() -> dict[str, dict[str, Any]]:
    """Returns versions and revision, machine and threads, for a JSON file."""
    with open("/proc/cpuinfo", encoding="utf-8") as file:
        models = [line.split(":", 1)[1].strip() for line in file if line.startswith("model name")]
    threads = {
        "intraop": tf.config.threading.get_intra_op_parallelism_threads(),
        "interop": tf.config.threading.get_inter_op_parallelism_threads(),
    }
    return {
        "versions": {**provenance.versions(), "revision": provenance.git_revision() or "not known"},
        "machine": {
            "cpu": models[0] if models else platform.machine(),
            "cores": len(os.sched_getaffinity(0)),
            "ram_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
            "gpus": len(tf.config.list_physical_devices("GPU")),
        },
        "threads": {
            name: number or os.environ.get(f"TF_NUM_{name.upper()}_THREADS", "TensorFlow's choice")
            for name, number in threads.items()
        },
    }


def sentences(described: Mapping[str, Any]) -> str:
    """Returns what `circumstances` returned in words, a sentence for each of its entries."""
    return " ".join(
        f"{name.capitalize()}: {', '.join(f'{key} {v}' for key, v in described[name].items())}."
        for name in ("versions", "machine", "threads")
    )
