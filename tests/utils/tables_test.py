"""Tables of text."""

import pytest

from fbrc_agent.utils import tables

ROWS = [["name", "score", "n"], ["a", "1.5", "10"], ["longer", "-12.0", "2"]]


def test_plain_columns_are_as_wide_as_their_widest_cell():
    assert tables.table(ROWS).split("\n") == [
        "name    score  n",
        "a       1.5    10",
        "longer  -12.0  2",
    ]


def test_the_last_alignment_stands_for_all_columns_after_it():
    assert tables.table(ROWS, "lr").split("\n") == [
        "name    score   n",
        "a         1.5  10",
        "longer  -12.0   2",
    ]


def test_markdown():
    assert tables.table(ROWS, "lr", markdown=True).split("\n") == [
        "| name   | score |  n |",
        "|--------|------:|---:|",
        "| a      |   1.5 | 10 |",
        "| longer | -12.0 |  2 |",
    ]


@pytest.mark.parametrize(
    "value, digits, text",
    [(1.25, 1, "1.2"), (-0.5, 2, "-0.50"), (None, 1, "-"), ("nan", 1, "nan"), ("-inf", 1, "-inf")],
)
def test_numbers(value, digits, text):
    assert tables.number(value, digits) == text
