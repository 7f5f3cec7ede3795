"""`bin/plot`: what runs record of themselves, drawn."""

import json
import shutil

import matplotlib
import matplotlib.image
import numpy as np
import pytest

from fbrc_agent.experiments import curves, figures
from fbrc_agent.utils.errors import InputError
from tests.helpers import tiny_runs


def stage(name, label, *panels):
    return {"name": name, "label": label, "panels": list(panels)}


STAGES = [stage("first", "first policy"), stage("second", "SECOND")]


def write_run(
    root_dir, task="Pendulum-v1", seed=0, checksum="c", algorithm="second", lines=(), stages=STAGES
):
    root_dir.mkdir()
    data = {
        "source": f"{checksum}.hdf5",
        "checksum": checksum,
        "transitions": 600,
        "return_mean": -1200.0,
    }
    identity = {"task": task, "seed": seed, "batch_size": 32, "data": data}
    identity.update(algorithm=algorithm, stages=stages)
    (root_dir / "run.json").write_text(json.dumps(identity))
    content = "".join(json.dumps(line) + "\n" for line in lines)
    (root_dir / "metrics.jsonl").write_text(content)
    return str(root_dir)


def returns(*values):
    return [{"stage": "second", "step": 10 * i, "return_mean": v} for i, v in enumerate(values, 1)]


def draw(*root_dirs):
    """Returns the figure before it is written."""
    return figures.draw([curves.read(root_dir) for root_dir in root_dirs])


def panel(figure, title):
    (axes,) = [axes for axes in figure.axes if axes.get_title() == title]
    return axes


def labels(axes):
    return [text.get_text() for text in axes.get_legend().get_texts()]


def test_picture_is_written_beside_the_metrics(tiny_run, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(tiny_run, run)
    before = set(run.rglob("*"))
    assert figures.plot([str(run)]) == str(run / "curves.png")
    assert set(run.rglob("*")) == before | {run / "curves.png"}
    image = matplotlib.image.imread(run / "curves.png")
    assert np.abs(np.subtract(image.shape, (1280, 1590, 4))).max() <= 1  # matplotlib rounds.
    # Not blank: every row and half of the picture has ink.
    for row in np.array_split(image, 3):
        for half in np.array_split(row, 2, axis=1):
            assert half[..., :3].std() > 0.05


def test_backend_of_matplotlib_is_left_alone(tiny_run, tmp_path):
    before = matplotlib.rcParams._get_backend_or_none()
    figures.plot([str(tiny_run)], str(tmp_path / "x.png"))
    assert matplotlib.rcParams._get_backend_or_none() == before


def test_picture_replaces_an_older_one(tiny_run, tmp_path):
    output = tmp_path / "x.png"
    output.write_bytes(b"old")
    figures.plot([str(tiny_run)], str(output))
    assert list(tmp_path.iterdir()) == [output]
    assert output.read_bytes().startswith(b"\x89PNG")


def test_one_run_shows_its_numbers(tiny_run):
    figure = draw(str(tiny_run))
    lines = [line for line in tiny_runs.read_lines(tiny_run) if line["stage"] == "fbrc"]
    evaluations = [line for line in lines if "returns" in line]
    curve = panel(figure, "Evaluation return, 1 seed").get_lines()[0]
    np.testing.assert_array_equal(curve.get_xdata(), [10, 20])
    np.testing.assert_array_equal(curve.get_ydata(), [r["return_mean"] for r in evaluations])
    measured = [line for line in lines if "critic_loss" in line]
    for title, names in [
        ("Critic loss", ["critic_loss"]),
        ("Actor loss", ["actor_loss"]),
        ("Action gradients", ["offset_gradient_norm", "behavior_gradient_norm"]),
        ("Value of actions", ["q_policy", "q_data"]),
        ("Policy entropy", ["entropy"]),
        ("Policy temperature", ["alpha"]),
    ]:
        for name, curve in zip(names, panel(figure, title).get_lines()):
            np.testing.assert_array_equal(curve.get_ydata(), [r[name] for r in measured])


def test_one_run_names_task_data_and_levels(tiny_run):
    figure = draw(str(tiny_run))
    identity = json.loads((tiny_run / "run.json").read_text())
    title = figure._suptitle.get_text()
    for part in ("Pendulum-v1", identity["data"]["source"], "597 transitions", "seed: 0"):
        assert part in title
    behavior = json.loads((tiny_run / "result.json").read_text())["stages"]["behavior"]
    assert labels(panel(figure, "Evaluation return, 1 seed")) == [
        "F-BRC",
        f"mean of the data: {identity['data']['return_mean']:.1f}",
        f"behavior policy: {behavior['return_mean']:.1f}",
    ]
    assert all(axes.get_xlabel() == "updates" for axes in figure.axes if axes.get_title())


def test_seeds_are_averaged_where_all_have_values(tmp_path):
    first = write_run(tmp_path / "a", seed=0, lines=returns(-900.0, -500.0, -100.0))
    second = write_run(tmp_path / "b", seed=1, lines=returns(-700.0, -200.0))
    axes = draw(first, second).axes[0]
    assert "2 seeds: thin lines, their mean a thick one, a band" in axes.get_title()
    curves = [line.get_ydata() for line in axes.get_lines()]
    np.testing.assert_array_equal(curves[0], [-900.0, -500.0, -100.0])
    np.testing.assert_array_equal(curves[1], [-700.0, -200.0])
    np.testing.assert_array_equal(curves[2], [-800.0, -350.0])
    band = axes.collections[0].get_paths()[0].vertices
    assert {(10, -900), (10, -700), (20, -500), (20, -200)} <= {tuple(v) for v in band}
    assert labels(axes)[0] == "SECOND"


def test_right_axis_is_the_normalized_score(tmp_path):
    root_dir = write_run(tmp_path / "a", task="Hopper-v4", lines=returns(0.0, 3000.0))
    figure = draw(root_dir)
    axes = panel(figure, "Evaluation return, 1 seed")
    (right,) = axes.child_axes
    axes.set_ylim(-20.272305, 3234.3)  # D4RL's random and expert returns of Hopper.
    right.apply_aspect()  # Takes the limits over.
    assert right.get_ylabel() == "normalized score"
    assert right.get_ylim() == pytest.approx((0.0, 100.0), abs=1e-4)


def test_run_in_its_first_stage_is_plotted(tmp_path):
    lines = [{"stage": "first", "step": 10, "log_prob": -1.0, "entropy": 1.0}]
    root_dir = write_run(tmp_path / "a", lines=lines)
    assert figures.plot([root_dir]) == f"{root_dir}/curves.png"


def test_panels_are_those_of_the_record(tmp_path):
    """Those of the algorithm first, then those of its pretraining."""
    fit = {"title": "Fit", "unit": "nats", "lines": {"fit": "of the data"}, "log_scale": False}
    loss = {"title": "Loss", "unit": "", "lines": {"x": "left", "y": "right"}, "log_scale": True}
    stages = [stage("first", "first policy", fit), stage("second", "SECOND", loss)]
    lines = [
        {"stage": "first", "step": 5, "fit": -1.5},
        {"stage": "second", "step": 5, "x": 1.0, "y": 100.0},
        {"stage": "second", "step": 10, "x": 2.0, "y": 10.0},
    ]
    figure = draw(write_run(tmp_path / "a", lines=lines, stages=stages))
    titles = [axes.get_title() for axes in figure.axes]
    assert titles == ["Evaluation return, 1 seed", "Loss", "Fit"]
    axes = panel(figure, "Loss")
    assert [list(line.get_ydata()) for line in axes.get_lines()] == [[1.0, 2.0], [100.0, 10.0]]
    assert (labels(axes), axes.get_yscale()) == (["left", "right"], "log")
    (curve,) = panel(figure, "Fit").get_lines()
    assert (list(curve.get_ydata()), panel(figure, "Fit").get_ylabel()) == ([-1.5], "nats")


def test_events_are_no_points(tmp_path):
    event = {"stage": "second", "step": 15, "event": "not_finite", "tensor": "q", "value": "nan"}
    root_dir = write_run(tmp_path / "a", lines=[*returns(-900.0), event])
    curve = panel(draw(root_dir), "Evaluation return, 1 seed").get_lines()[0]
    assert list(curve.get_xdata()) == [10.0]


def test_numbers_that_are_not_finite_are_gaps(tmp_path):
    root_dir = write_run(tmp_path / "a", lines=returns(-900.0, "nan", "inf"))
    curve = panel(draw(root_dir), "Evaluation return, 1 seed").get_lines()[0]
    np.testing.assert_array_equal(curve.get_ydata(), [-900.0, np.nan, np.nan])
    figures.plot([root_dir])


def test_pretrained_policy_of_another_run_is_taken_from_the_result(tmp_path):
    root_dir = write_run(tmp_path / "a", lines=returns(-900.0))
    result = {"stages": {"first": {"return_mean": -777.0}}}
    (tmp_path / "a" / "result.json").write_text(json.dumps(result))
    assert "first policy: -777.0" in labels(panel(draw(root_dir), "Evaluation return, 1 seed"))


def test_directory_without_a_run_is_refused(tmp_path):
    with pytest.raises(InputError, match="holds no run: there is no .*run.json"):
        figures.plot([str(tmp_path)])


def test_run_without_lines_is_refused(tmp_path):
    root_dir = write_run(tmp_path / "a")
    with pytest.raises(InputError, match="has no line yet"):
        figures.plot([root_dir])
    (tmp_path / "a" / "metrics.jsonl").unlink()
    with pytest.raises(InputError, match="has no line yet"):
        figures.plot([root_dir])


@pytest.mark.parametrize(
    "difference, message",
    [
        ({"task": "Hopper-v4"}, "one task together"),
        ({"checksum": "d"}, "one data set together"),
        ({"stages": [stage("second", "third")]}, "one algorithm together"),
    ],
)
def test_runs_of_different_settings_are_refused(tmp_path, difference, message):
    first = write_run(tmp_path / "a", lines=returns(1.0))
    second = write_run(tmp_path / "b", lines=returns(1.0), **difference)
    with pytest.raises(InputError, match=message):
        figures.plot([first, second], str(tmp_path / "x.png"))
    assert not (tmp_path / "x.png").exists()
