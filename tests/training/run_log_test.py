"""metrics.jsonl: its lines, and what a second start leaves of them."""

import json
import time

import pytest

from fbrc_agent.training import run_log


def open_log(root_dir, stage="fbrc", step=0):
    return run_log.StageLog(str(root_dir), ["behavior", "fbrc"], stage, step, num_steps=100)


def write_lines(root_dir, stage, steps):
    log = open_log(root_dir, stage)
    for step in steps:
        log.write(step, {"loss": float(step)})
    log.close()


def steps_on_disk(root_dir):
    return [(r["stage"], r["step"]) for r in run_log.read_metrics(str(root_dir))]


def test_line_holds_stage_step_seconds_and_scalars(tmp_path):
    log = open_log(tmp_path)
    log.write(10, {"loss": 0.5, "returns": [1.0, 2.0], "score": None})
    log.close()
    line = json.loads((tmp_path / "metrics.jsonl").read_text())
    assert line == {
        "stage": "fbrc",
        "step": 10,
        "seconds": 0.0,
        "loss": 0.5,
        "returns": [1.0, 2.0],
        "score": None,
    }


def test_lines_beyond_the_checkpoint_are_dropped(tmp_path):
    write_lines(tmp_path, "fbrc", [10, 20, 30])
    log = open_log(tmp_path, step=20)
    log.close()
    assert steps_on_disk(tmp_path) == [("fbrc", 10), ("fbrc", 20)]
    assert [record["step"] for record in log.records] == [10, 20]


def test_earlier_stage_is_kept(tmp_path):
    write_lines(tmp_path, "behavior", [50])
    log = open_log(tmp_path, "fbrc", step=0)
    log.close()
    assert steps_on_disk(tmp_path) == [("behavior", 50)]
    assert log.records == []


def test_line_cut_by_a_kill_is_dropped(tmp_path):
    write_lines(tmp_path, "fbrc", [10, 20])
    path = tmp_path / "metrics.jsonl"
    path.write_text(path.read_text()[:-9])
    log = open_log(tmp_path, step=20)
    log.write(30, {"loss": 3.0})
    log.close()
    assert steps_on_disk(tmp_path) == [("fbrc", 10), ("fbrc", 30)]
    assert path.read_text().count("\n") == 2


def test_seconds_go_on_where_the_kept_lines_end(tmp_path):
    lines = [
        {"stage": "behavior", "step": 50, "seconds": 900.0},
        {"stage": "fbrc", "step": 10, "seconds": 7.0},
        {"stage": "fbrc", "step": 20, "seconds": 15.0},
    ]
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    log = open_log(tmp_path, step=10)
    log.close()
    assert log.seconds == 7.0


def test_only_training_counts_as_seconds(tmp_path):
    log = open_log(tmp_path)
    time.sleep(0.2)
    log.start_clock()
    time.sleep(0.05)
    log.stop_clock()
    stopped = log.seconds
    time.sleep(0.2)
    log.close()
    assert 0.05 <= stopped < 0.2
    assert log.seconds == stopped


@pytest.mark.parametrize("value, text", [("inf", "inf"), ("-inf", "-inf"), ("nan", "nan")])
def test_numbers_that_json_lacks_are_texts(tmp_path, value, text):
    log = open_log(tmp_path)
    log.write(1, {"loss": float(value), "returns": [1.0, float(value)]})
    log.close()

    def refuse(constant):
        raise AssertionError(f"{constant} is not JSON")

    written = (tmp_path / "metrics.jsonl").read_text()
    line = json.loads(written, parse_constant=refuse)
    assert (line["loss"], line["returns"]) == (text, [1.0, text])


# Events.


def test_events_and_numbers_are_read_apart(tmp_path):
    log = open_log(tmp_path)
    log.write(10, {"loss": 0.5})
    log.write_event(10, "not_finite", tensor="critic_loss", value="nan")
    log.close()
    assert [line["loss"] for line in run_log.read_metrics(str(tmp_path))] == [0.5]
    assert run_log.read_events(str(tmp_path)) == [
        {
            **{"stage": "fbrc", "step": 10, "seconds": 0.0},
            **{"event": "not_finite", "tensor": "critic_loss", "value": "nan"},
        }
    ]
    assert log.records == run_log.read_metrics(str(tmp_path))


def test_events_beyond_the_checkpoint_are_dropped(tmp_path):
    log = open_log(tmp_path)
    log.write_event(10, "interrupted", signal="SIGTERM")
    log.write_event(20, "diverged", q=9.0, bound=5.0)
    log.close()
    open_log(tmp_path, step=10).close()
    assert [line["event"] for line in run_log.read_events(str(tmp_path))] == ["interrupted"]
