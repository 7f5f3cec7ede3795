"""Tables of text, for terminals and for Markdown pages."""

from collections.abc import Sequence
from typing import Union


def table(rows: Sequence[Sequence[str]], align: str = "l", markdown: bool = False) -> str:
    """Returns a table whose columns are as wide as their widest cell.

    Args:
      rows: Cells; the first row is the head.
      align: 'l' or 'r' for each column, to its left or right; the last one stands for all columns
        after it, so 'lr' is a column of names and then numbers.
      markdown: Whether to return Markdown instead of plain columns, two spaces apart.
    """
    widths = [max(map(len, column)) for column in zip(*rows)]
    sides = align.ljust(len(widths), align[-1])
    lines = [
        [
            cell.rjust(n) if side == "r" else cell.ljust(n)
            for cell, n, side in zip(row, widths, sides)
        ]
        for row in rows
    ]
    if not markdown:
        return "\n".join("  ".join(line).rstrip() for line in lines)
    rules = ["-" * (n + 1) + (":" if side == "r" else "-") for n, side in zip(widths, sides)]
    texts = ["| " + " | ".join(line) + " |" for line in lines]
    return "\n".join([texts[0], "|" + "|".join(rules) + "|", *texts[1:]])


def number(value: Union[float, str, None], digits: int = 1) -> str:
    """Returns a number as a cell; '-' for None. 'nan' and 'inf', as JSON files have them, stay."""
    return "-" if value is None else f"{float(value):.{digits}f}"
