"""Warnings: what is found in data, as records and in the log."""

import logging

import numpy as np
import pytest

from fbrc_agent.datasets import inspection, offline_data, sources
from tests.helpers import logs


@pytest.fixture(name="columns")
def _columns():
    return logs.columns(logs.make_episodes(lengths=(50, 60, 40)))


def found(columns, **arguments):
    return sources.load_dataset(columns, **arguments).findings


def test_good_data_has_no_findings(columns):
    assert found(columns) == ()
    for name in ("pendulum", "hopper"):
        assert sources.load_dataset(f"embedded:{name}-medium-replay").findings == ()


def test_a_constant_column(columns):
    columns["observations"][:, 1] = columns["next_observations"][:, 1] = 3
    columns["actions"][:, 0] = -0.5
    assert found(columns) == (
        inspection.Finding("constant_column", "observations[1]", None, 3, 3),
        inspection.Finding("constant_column", "actions[0]", None, -0.5, -0.5),
    )


def test_a_column_that_is_constant_but_for_one_row_is_not_constant():
    observations = np.random.default_rng(0).normal(size=(50_000, 2))
    observations[:, 1] = 0
    observations[12_345, 1] = 1
    columns = {
        "observations": observations,
        "actions": np.random.default_rng(1).uniform(-1, 1, (50_000, 1)),
        "rewards": np.random.default_rng(2).normal(size=50_000),
        "timeouts": np.arange(50_000) % 100 == 99,
    }
    assert found(columns) == ()


@pytest.mark.parametrize("scale, offset, kind", [(1e4, 0, "large_scale"), (1, 1e4, "large_offset")])
def test_a_column_that_drowns_the_rest(columns, scale, offset, kind):
    for key in ("observations", "next_observations"):
        columns[key][:, 2] = columns[key][:, 2] * scale + offset
    values = columns["observations"][:, 2]
    (finding,) = found(columns)
    assert (finding.kind, finding.column) == (kind, "observations[2]")
    assert (finding.minimum, finding.maximum) == (values.min(), values.max())
    size = np.sqrt(np.mean(np.square(values, dtype=np.float64)))
    assert finding.typical == pytest.approx(size, rel=1e-6)


def test_pendulum_ten_thousand_times_too_large_warns_at_load(caplog):
    data = sources.load_dataset("embedded:pendulum-medium-replay")
    columns = {name: getattr(data, name) for name in ("actions", "rewards", "observations")}
    columns["observations"] = columns["observations"] * 1e4
    columns["next_observations"] = data.next_observations * 1e4
    columns["terminals"] = data.discounts == 0
    with caplog.at_level(logging.WARNING):
        data = sources.load_dataset(columns, action_bounds=(-2, 2))
    assert [f.kind for f in data.findings] == ["large_scale"] * 3
    (record,) = caplog.records  # One sentence for the three.
    assert record.getMessage().startswith(
        "arrays: observations[0], observations[1], observations[2]"
    )
    assert "preprocess.normalize_observations" in record.getMessage()


@pytest.mark.parametrize(
    "rewards, kind",
    [
        (lambda r: r * 1e5, "large_rewards"),
        (lambda r: r * 1e-6, "small_rewards"),
        (lambda r: r * 0 + 2, "constant_rewards"),
        (lambda r: r * 100, None),
    ],
)
def test_rewards_whose_size_makes_the_critics_absurd(columns, rewards, kind):
    columns["rewards"] = rewards(columns["rewards"])
    assert [f.kind for f in found(columns)] == ([kind] if kind else [])


@pytest.mark.parametrize("num_rows", [100, 60_000])
def test_a_file_that_is_there_twice(num_rows):
    columns = logs.columns(logs.make_episodes(lengths=(num_rows,)))
    (finding,) = found([columns, columns])
    assert finding.kind == "duplicate_rows"
    assert finding.count == pytest.approx(num_rows, rel=0.1)


def test_steps_that_are_left_out_are_counted():
    columns = logs.columns(logs.make_episodes(lengths=(2, 2, 2) * 10))
    del columns["next_observations"]
    data = sources.load_dataset(columns)
    # The first of three is terminal and complete, of the other two one step of two is left out.
    assert (data.num_rows, data.num_transitions) == (60, 40)
    assert data.findings == (inspection.Finding("rows_left_out", "observations", 20),)


def test_logs_without_time_limits(columns, tmp_path):
    for key in ("timeouts", "episodes", "next_observations"):
        del columns[key]
    assert [f.kind for f in found(columns)] == ["no_time_limits"]
    assert found(columns, max_episode_steps=60) == ()


def test_arrays_are_inspected_too(columns):
    data = offline_data.OfflineData.from_arrays(
        **{name: columns[name] for name in logs.NAMES[:4]}, discounts=~columns["terminals"]
    )
    assert data.findings == ()
    data = offline_data.OfflineData.from_arrays(
        **{name: columns[name] * 1e6 for name in ("observations", "next_observations")},
        **{name: columns[name] for name in ("actions", "rewards")},
        discounts=~columns["terminals"],
    )
    assert [f.kind for f in data.findings] == ["large_scale"] * 3


def test_a_sentence_names_five_columns_and_counts_the_rest():
    findings = [
        inspection.Finding("constant_column", f"observations[{i}]", None, 1, 1) for i in range(8)
    ]
    (sentence,) = inspection.sentences(findings)
    assert "observations[4] and 3 more is 1 in every row" in sentence


@pytest.mark.parametrize("kind", inspection.SENTENCES)
def test_every_kind_has_a_sentence(kind):
    (sentence,) = inspection.sentences([inspection.Finding(kind, "rewards", 5, 0.0, 1.0, 0.5)])
    assert sentence.endswith(".") and "None" not in sentence
