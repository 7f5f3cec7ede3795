"""What an experiment leaves: its numbers, its picture, and a page that shows both."""

import dataclasses
import os
from collections.abc import Sequence
from typing import Any

from matplotlib.figure import Figure

from fbrc_agent.experiments import benchmark_io, plot
from fbrc_agent.utils import atomic_files, json_files

# Okabe and Ito's colors: told apart without seeing red and green.
BLUE, ORANGE, GREEN, GRAY = "#0072B2", "#D55E00", "#009E73", "#555555"
PURPLE, SKY, YELLOW = "#CC79A7", "#56B4E9", "#E69F00"


@dataclasses.dataclass(frozen=True)
class Report:
    """The result of an experiment.

    Attributes:
      name: Its name on the command line.
      title: One line.
      command: The command that runs it again, from `command`.
      numbers: What was measured, as JSON; None stands where a number is not finite.
      figure: The picture.
      text: What came out, in Markdown without headings; also what is printed.
    """

    name: str
    title: str
    command: str
    numbers: dict[str, Any]
    figure: Figure
    text: str

    def write(self, root_dir: str) -> list[str]:
        """Writes `<name>.json`, `<name>.png` and README.md, each whole or not at all.

        Args:
          root_dir: An existing directory; files of these names in it are replaced.

        Returns:
          The paths of the three files.

        Raises:
          ValueError: If `numbers` has a NaN or an infinity; nothing is written then.
        """
        files = [f"{self.name}.json", f"{self.name}.png", "README.md"]
        numbers, picture, page = (os.path.join(root_dir, file) for file in files)
        json_files.write_json(numbers, self.numbers)
        plot.write_png(picture, self.figure)
        atomic_files.write_text(page, self._page())
        return [numbers, picture, page]

    def _page(self) -> str:
        return "\n".join(
            [
                f"# {self.title}",
                "",
                self.text.strip(),
                "",
                f"![{self.title}]({self.name}.png)",
                "",
                f"All numbers are in [{self.name}.json]({self.name}.json).",
                "",
                "```",
                self.command,
                "```",
                "",
                _circumstances(self.command.split()),
                "",
            ]
        )


def command(name: str, quick: bool) -> str:
    """Returns the command that runs an experiment."""
    return f"bin/reproduce {name}" + (" --quick" if quick else "")


def _circumstances(words: Sequence[str]) -> str:
    """Returns in which setting a command was run, with which versions and on which machine."""
    described = benchmark_io.describe_machine()
    machine = described["machine"]
    versions = ", ".join(f"{name} {version}" for name, version in described["versions"].items())
    setting = "the quick setting" if "--quick" in words else "the full setting"
    if "--gin_bindings" in words:
        setting += ", with the values of the command in place"
    revision = described["git_revision"] or "not known"
    return (
        f"This is {setting}. Versions: {versions}; revision: {revision}. Machine: "
        f"{machine['cpu']}, {machine['cores']} cores, {machine['ram_bytes'] / 2**30:.1f} GiB, "
        f"{machine['gpus']} GPUs."
    )
