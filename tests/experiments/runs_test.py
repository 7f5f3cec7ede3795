"""The experiments of training runs: what a grid runs, what it leaves alone, what it reports."""

import dataclasses
import json
import os
import pathlib
import re
import signal
import statistics
import subprocess
import sys
import time

import gin
import matplotlib.image
import pytest

from fbrc_agent.environments import tasks
from fbrc_agent.experiments import grid, processes, runs, summaries
from fbrc_agent.utils import run_lock
from fbrc_agent.utils.errors import InputError
from tests.helpers import tiny_runs

TASK, DATA = "Pendulum-v1", "embedded:pendulum-medium-replay"
STEPS = 400
RANDOM, EXPERT = tasks.get_task(TASK).reference_scores


def make_sizes(root_dir, **changes):
    values = {
        "tasks": {TASK: DATA},
        "seeds": 2,
        "pretraining_steps": 20,
        "steps": STEPS,
        "eval_interval": 100,
        "num_eval_episodes": 1,
        **changes,
    }
    return grid.Sizes(os.path.join(root_dir, "runs"), **values)


def write_run(directory, seed, records, steps=STEPS, algorithm="fbrc"):
    """Writes what a complete run leaves, with these metrics."""
    directory.mkdir(parents=True)
    data = {
        "source": DATA,
        "checksum": "0",
        "transitions": 100,
        "episodes": 4,
        "return_mean": RANDOM + 0.25 * (EXPERT - RANDOM),
    }
    identity = {"task": TASK, "seed": seed, "batch_size": 32, "data": data, "algorithm": algorithm}
    identity["stages"] = [
        {"name": name, "label": f"the {name} policy", "panels": []}
        for name in (["behavior", "fbrc"] if algorithm == "fbrc" else [algorithm])
    ]
    result = {"algorithm": algorithm, "stages": {algorithm: {"steps": steps}}}
    (directory / "run.json").write_text(json.dumps(identity))
    (directory / "result.json").write_text(json.dumps(result))
    (directory / "metrics.jsonl").write_text("".join(json.dumps(r) + "\n" for r in records))


def evaluation(step, score, stage="fbrc"):
    return {"stage": stage, "step": step, "returns": [0.0], "normalized_score": score}


def event(step, name, stage="fbrc"):
    return {"stage": stage, "step": step, "event": name}


def append(directory, *records):
    with open(directory / "metrics.jsonl", "a", encoding="utf-8") as file:
        file.write("".join(json.dumps(record) + "\n" for record in records))


def write_setting(runs_dir, name, scores_by_seed, behavior="behavior-mixture", behavior_score=40.0):
    for seed, scores in enumerate(scores_by_seed):
        records = [evaluation(100 * (i + 1), score) for i, score in enumerate(scores)]
        write_run(runs_dir / TASK / name / f"seed{seed}", seed, records)
        fitted = runs_dir / TASK / behavior / f"seed{seed}"
        if not fitted.exists():
            fit = {"stage": "behavior", "step": 20, "log_prob": 1.5 + seed}
            lines = [fit, evaluation(20, behavior_score, "behavior")]
            write_run(fitted, seed, lines, steps=20, algorithm="behavior")


@pytest.fixture(autouse=True)
def _gin():
    gin.clear_config()
    gin.add_config_file_search_path(str(tiny_runs.ROOT / "gin"))
    yield
    gin.clear_config()


def run_with_sizes(run, root_dir, **changes):
    sizes = make_sizes(root_dir, **changes)
    bindings = [
        f"grid.{name} = {getattr(sizes, name)!r}"
        for name in ("tasks", "seeds", "pretraining_steps", "steps", "eval_interval")
    ]
    return tiny_runs.run_command(
        "reproduce", run, "--root_dir", root_dir, "--gin_bindings", *bindings,
        f"grid.num_eval_episodes = {sizes.num_eval_episodes}",
    )  # fmt: skip


def cells_by_setting(root_dir, name):
    numbers = json.loads((root_dir / f"{name}.json").read_text())
    return {cell["setting"]: cell for cell in numbers["cells"]}


# What is reported of runs that are there: no process is started.


@pytest.fixture
def complete_lambda(tmp_path):
    """Runs of two seeds for each weight; six evaluations of 0.1, so that five are the last."""
    root_dir = tmp_path / "lambda"
    runs_dir = root_dir / "runs"
    write_setting(runs_dir, "fbrc", [[0.0, 50.0, 60.0, 70.0], [10.0, 52.0, 64.0, 78.0]])
    write_setting(runs_dir, "lambda-0", [[30.0, 20.0, 10.0, 0.0], [30.0, 30.0, 30.0, 30.0]])
    write_setting(runs_dir, "lambda-1", [[40.0] * 4, [44.0] * 4])
    return root_dir


def test_scores_are_those_of_the_metrics(complete_lambda):
    assert run_with_sizes("lambda", complete_lambda) == 0
    fbrc = cells_by_setting(complete_lambda, "lambda")["fbrc"]
    # Last: 70 and 78. All four are among the last five: 180 / 4 and 204 / 4.
    assert fbrc["last_score"] == {"mean": 74.0, "std": pytest.approx(32.0**0.5), "n": 2}
    assert [run["mean_of_last_scores"] for run in fbrc["runs"]] == [45.0, 51.0]
    assert fbrc["runs"][1]["curves"] == {
        "normalized_score": {"steps": [100, 200, 300, 400], "values": [10.0, 52.0, 64.0, 78.0]}
    }


def test_only_the_last_five_evaluations_are_averaged(complete_lambda):
    directory = complete_lambda / "runs" / TASK / "fbrc" / "seed0"
    scores = [1000.0, 1.0, 2.0, 3.0, 4.0, 5.0]
    lines = [json.dumps(evaluation(50 * (i + 1), score)) for i, score in enumerate(scores)]
    (directory / "metrics.jsonl").write_text("\n".join(lines) + "\n")
    assert run_with_sizes("lambda", complete_lambda) == 0
    run = cells_by_setting(complete_lambda, "lambda")["fbrc"]["runs"][0]
    assert run["mean_of_last_scores"] == 3.0


def test_evaluations_beyond_the_asked_updates_do_not_count(complete_lambda):
    assert run_with_sizes("lambda", complete_lambda, steps=200) == 0
    fbrc = cells_by_setting(complete_lambda, "lambda")["fbrc"]
    assert [run["last_score"] for run in fbrc["runs"]] == [50.0, 52.0]


def test_collapse_and_divergence_are_reported(complete_lambda):
    directory = complete_lambda / "runs" / TASK / "lambda-0" / "seed1"
    append(directory, event(300, "diverged"), event(350, "diverged"))
    assert run_with_sizes("lambda", complete_lambda) == 0
    without = cells_by_setting(complete_lambda, "lambda")["lambda-0"]["runs"]
    # Half of the behavior policy's 40; the means are 15 and 30.
    assert [run["collapsed"] for run in without] == [True, False]
    assert [run["critic_diverged_at"] for run in without] == [None, 300]
    page = (complete_lambda / "README.md").read_text()
    assert "collapsed (seed 0), critic diverged by step 300 (seed 1)" in page


def test_events_beyond_the_asked_updates_do_not_count(complete_lambda):
    append(complete_lambda / "runs" / TASK / "fbrc" / "seed1", event(300, "diverged"))
    assert run_with_sizes("lambda", complete_lambda, steps=200) == 0
    fbrc = cells_by_setting(complete_lambda, "lambda")["fbrc"]
    assert fbrc["runs"][1]["critic_diverged_at"] is None


def test_a_run_that_ended_in_nan_counts_with_its_evaluations_before(complete_lambda):
    directory = complete_lambda / "runs" / TASK / "lambda-0" / "seed0"
    (directory / "result.json").unlink()
    (directory / "metrics.jsonl").unlink()
    append(directory, evaluation(100, 30.0), evaluation(200, 20.0), event(250, "not_finite"))
    assert run_with_sizes("lambda", complete_lambda) == 0
    run = cells_by_setting(complete_lambda, "lambda")["lambda-0"]["runs"][0]
    assert (run["nan_step"], run["last_score"]) == (250, 20.0)
    page = (complete_lambda / "README.md").read_text()
    assert "NaN at step 250 (seed 0)" in page


def test_page_describes_data_seeds_and_the_command(complete_lambda):
    assert run_with_sizes("lambda", complete_lambda) == 0
    page = (complete_lambda / "README.md").read_text()
    assert f"{DATA}, 100 transitions, 4 episodes, mean score 25.0; not the task's D4RL file" in page
    assert "| Pendulum-v1 | λ = 0.1 | 74.0 ± 5.7 " in page
    assert "| 70.0, 78.0 " in page
    assert f"bin/reproduce lambda --root_dir {complete_lambda} --gin_bindings" in page
    assert '"grid.steps = 400"' in page
    assert "the full setting, with the values of the command in place. Versions" in page


def test_picture_has_a_panel_for_each_task(complete_lambda, tmp_path):
    assert run_with_sizes("lambda", complete_lambda) == 0
    image = matplotlib.image.imread(complete_lambda / "lambda.png")
    assert image.shape[1] > 800
    assert image[..., :3].std() > 0.05


def test_norms_are_those_of_the_runs_of_lambda(tmp_path):
    runs_dir = tmp_path / "runs"
    write_setting(runs_dir, "fbrc", [[50.0]])
    write_setting(runs_dir, "lambda-0", [[50.0]])
    records = [
        {"stage": "fbrc", "step": i, "offset_gradient_norm": o, "behavior_gradient_norm": b}
        for i, (o, b) in enumerate([(90.0, 1.0), (1.0, 2.0), (2.0, 2.0), (3.0, 2.0), (4.0, 2.0)], 1)
    ] + [{"stage": "fbrc", "step": 6, "offset_gradient_norm": "inf", "behavior_gradient_norm": 7.0}]
    path = runs_dir / TASK / "lambda-0" / "seed0" / "metrics.jsonl"
    path.write_text("".join(json.dumps(r) + "\n" for r in records))
    assert run_with_sizes("norms", tmp_path, seeds=1) == 0
    cell = cells_by_setting(tmp_path, "norms")["lambda-0"]
    (run,) = cell["runs"]
    assert run["curves"]["offset_gradient_norm"] == {
        "steps": [1, 2, 3, 4, 5, 6],
        "values": [90.0, 1.0, 2.0, 3.0, 4.0, None],
    }
    assert run["offset_gradient_norm_at_end"] == 20.0
    assert cell["largest_offset_gradient_norm"] == {"mean": 90.0, "std": None, "n": 1}
    assert cell["behavior_gradient_norm_at_end"]["mean"] == 3.0


def test_density_reports_likelihood_and_scores_of_each_behavior_policy(tmp_path):
    runs_dir = tmp_path / "runs"
    write_setting(runs_dir, "fbrc", [[50.0], [60.0]])
    write_setting(runs_dir, "gaussian", [[30.0], [30.0]], "behavior-gaussian", 20.0)
    write_setting(runs_dir, "joint", [[70.0], [70.0]], "behavior-joint", 45.0)
    assert run_with_sizes("density", tmp_path) == 0
    cells = cells_by_setting(tmp_path, "density")
    assert {name: cell["pretrained_score"]["mean"] for name, cell in cells.items()} == {
        "fbrc": 40.0,
        "gaussian": 20.0,
        "joint": 45.0,
    }
    likelihood = cells["fbrc"]["log_likelihood"]
    assert likelihood == {"mean": 2.0, "std": statistics.stdev([1.5, 2.5]), "n": 2}


# What is refused.


@pytest.mark.parametrize(
    "binding, message",
    [
        ("grid.tasks = 'hopper-medium-v2'", "it must name the data of each task"),
        ("grid.tasks = {'hopper-medium-v2': 3}", "it must name the data of each task"),
        ("grid.tasks = {'antmaze-umaze-v0': None}", "must have an environment to evaluate in"),
        ("grid.seeds = 0", "grid.seeds is 0; it must be an integer of 1 or more"),
        ("grid.eval_interval = 0.5", "grid.eval_interval is 0.5; it must be an integer of 0"),
        ("grid.bindings = 'SEED = 1'", "it must be a list of gin bindings"),
    ],
)
def test_sizes_that_cannot_be_are_refused_in_one_sentence(tmp_path, capsys, binding, message):
    code = tiny_runs.run_command(
        *("reproduce", "lambda", "--quick", "--root_dir", tmp_path, "--gin_bindings", binding)
    )
    error = capsys.readouterr().err
    assert code == 2
    assert message in error and error.count("\n") == 1
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"bindings": ["FbrcAgent.gamma = 0.5"]}, "what fbrc.gin has, not FbrcAgent.gamma = 0.5"),
        ({"tasks": {TASK: "other.hdf5"}}, f"DATA = '{DATA}', not DATA = 'other.hdf5'"),
    ],
)
def test_a_complete_run_of_other_settings_is_refused(complete_lambda, changes, message):
    for run in grid.make_runs([runs.FBRC], make_sizes(complete_lambda)):
        run.write_gin()
    others = grid.make_runs([runs.FBRC], make_sizes(complete_lambda, **changes))
    with pytest.raises(InputError, match=f"fbrc/seed0 holds a run of {re.escape(message)}; give"):
        processes.run_all(others, num_jobs=1)


def test_a_binding_that_is_gone_is_another_setting(complete_lambda):
    (run, _) = grid.make_runs([runs.LAMBDA_1], make_sizes(complete_lambda))
    run.write_gin()
    (other, _) = grid.make_runs([runs.FBRC._replace(name="lambda-1")], make_sizes(complete_lambda))
    message = "holds a run of FbrcAgent.gradient_penalty_weight = 1.0, not what fbrc.gin has; give"
    with pytest.raises(InputError, match=message):
        other.check()


def test_intervals_may_differ(complete_lambda):
    before = grid.make_runs([runs.FBRC], make_sizes(complete_lambda, eval_interval=7))
    for run in before:
        run.write_gin()
    processes.run_all(grid.make_runs([runs.FBRC], make_sizes(complete_lambda)), num_jobs=1)


def test_a_shared_network_of_other_updates_is_refused(complete_lambda):
    sizes = make_sizes(complete_lambda, pretraining_steps=30)
    with pytest.raises(InputError, match="seed0 holds a run of 20 updates, not 30"):
        processes.run_all(grid.make_runs([runs.FBRC], sizes), num_jobs=1)


# What processes do.


NETWORKS = (
    "BATCH_SIZE = 32",
    "MixtureBehaviorNetwork.fc_layer_params = (8,)",
    "create_offset_network.fc_layer_params = (8,)",
    "create_actor_network.fc_layer_params = (8,)",
)
NAN = runs.FBRC._replace(name="nan", bindings=("critic/Adam.learning_rate = 1e30",))


@pytest.fixture(scope="module")
def real_runs(tmp_path_factory):
    """Runs of the two settings."""
    root_dir = tmp_path_factory.mktemp("grid")
    sizes = make_sizes(root_dir, seeds=1, steps=20, eval_interval=10, num_jobs=2, bindings=NETWORKS)
    made = grid.make_runs([runs.FBRC, NAN], sizes)
    processes.run_all(made, sizes.num_jobs)
    return made


def test_runs_have_the_behavior_policy_of_the_grid(real_runs):
    fbrc, _ = real_runs
    assert fbrc.completed_updates() == 20
    lines = tiny_runs.read_lines(fbrc.root_dir)
    assert {line["stage"] for line in lines} == {"fbrc"}
    config = open(os.path.join(fbrc.root_dir, "operative_config.gin"), encoding="utf-8").read()
    directory = os.path.join(fbrc.sizes.runs_dir, TASK, "behavior-mixture", "seed0", "behavior")
    assert f"train.pretrained = {{'behavior': '{directory}'}}" in config


def test_numbers_of_a_run_are_those_of_its_metrics(real_runs):
    fbrc, _ = real_runs
    (cell,) = summaries.read_cells([fbrc])
    numbers = cell.to_json([summaries.SCORE])
    lines = tiny_runs.read_lines(fbrc.root_dir)
    returns = [(r["step"], sum(r["returns"]) / len(r["returns"])) for r in lines if "returns" in r]
    assert numbers["runs"][0]["curves"]["normalized_score"] == {
        "steps": [10, 20],
        "values": pytest.approx([100 * (r - RANDOM) / (EXPERT - RANDOM) for _, r in returns]),
    }
    fitted = tiny_runs.read_lines(fbrc.pretrained["behavior"].root_dir)
    last = [r["normalized_score"] for r in fitted if "normalized_score" in r][-1]
    assert numbers["pretrained_score"]["mean"] == last


def test_nan_is_an_outcome(real_runs):
    _, bad = real_runs
    assert 1 <= summaries.read(bad).events()["nan_step"] <= 20
    assert bad.completed_updates() == 0


def test_a_second_call_leaves_what_is_done_alone(real_runs):
    sizes = real_runs[0].sizes
    before = tiny_runs.read_files(sizes.runs_dir)
    processes.run_all(grid.make_runs([runs.FBRC, NAN], sizes), sizes.num_jobs)
    assert tiny_runs.read_files(sizes.runs_dir) == before


def test_a_run_that_is_not_complete_is_refused_by_train(real_runs):
    """It compares every value that was used, and its sentence is passed on."""
    sizes = dataclasses.replace(
        real_runs[0].sizes, steps=30, bindings=[*NETWORKS, "FbrcAgent.gamma = 0.5"]
    )
    (run,) = grid.make_runs([runs.FBRC], sizes)
    os.remove(run.path("run.gin"))
    os.remove(run.pretrained["behavior"].path("run.gin"))
    with pytest.raises(InputError, match=r"code 2 \(train: .* FbrcAgent.gamma = 0.99, not 0.5"):
        processes.run_all([run], num_jobs=1)


def write_lines(run, *lines):
    text = "".join(json.dumps({"stage": "fbrc", **line}) + "\n" for line in lines)
    with open(os.path.join(run.root_dir, "metrics.jsonl"), "w", encoding="utf-8") as file:
        file.write(text)


@pytest.fixture
def resumed_run(tmp_path):
    """A run of 400 updates that was complete with 300."""
    (run,) = grid.make_runs([runs.FBRC], make_sizes(tmp_path, seeds=1))
    write_run(pathlib.Path(run.root_dir), 0, [evaluation(300, 20.0)], steps=300)
    return run


def test_a_score_is_shown_though_its_step_was_logged_before(resumed_run, capsys):
    bar = processes.Bar([resumed_run])
    lines = [evaluation(300, 20.0)]
    shown = []
    for line in [{"step": 350, "critic_loss": 1.0}, evaluation(350, 30.0), {"step": 380}]:
        lines.append(line)
        write_lines(resumed_run, *lines)
        bar.show([resumed_run])
        shown.append(bar.bar.postfix)
    bar.bar.close()
    title = f"{TASK}, fbrc, seed 0"
    assert shown == [None, f"{title}: score 30.0", f"{title}: score 30.0"]
    assert f"{title}: score 30.0" in capsys.readouterr().err


def test_a_killed_run_that_resumes_from_its_checkpoint_is_shown_at_no_rate(resumed_run):
    bar = processes.Bar([resumed_run])
    for step, done in [(200, 0), (250, 50)]:
        write_lines(resumed_run, evaluation(step, 20.0))
        bar.show([resumed_run])
        assert bar.bar.n == step
        assert bar.bar.n - bar.bar.initial == done
    bar.bar.close()


def test_a_run_that_fails_ends_the_experiment_with_its_log(tmp_path):
    sizes = make_sizes(tmp_path, tasks={TASK: str(tmp_path / "none.hdf5")}, seeds=1)
    with pytest.raises(InputError) as error:
        processes.run_all(grid.make_runs([runs.FBRC], sizes), num_jobs=1)
    log = tmp_path / "runs" / TASK / "behavior-mixture" / "seed0" / "train.log"
    assert str(error.value).startswith(
        f"{TASK}, behavior-mixture, seed 0: the run ended with exit code 2 (train: "
    )
    assert str(error.value).endswith(f"its log is {log}.")
    assert "none.hdf5" in log.read_text()
    assert not (tmp_path / "runs" / TASK / "fbrc").exists()


@pytest.mark.slow
def test_a_signal_saves_the_runs_and_ends_the_experiment(tmp_path):
    bindings = [
        f"grid.bindings = {NETWORKS!r}",
        "grid.seeds = 1",
        "grid.pretraining_steps = 1000000",
        "grid.num_jobs = 1",
    ]
    command = [sys.executable, "-m", "fbrc_agent.cli", "reproduce", "norms", "--quick"]
    command += ["--root_dir", str(tmp_path), "--gin_bindings", *bindings]
    parent = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    directory = tmp_path / "runs" / TASK / "behavior-mixture" / "seed0"
    while not tiny_runs.read_lines(directory):
        assert parent.poll() is None, parent.stderr.read()
        time.sleep(0.2)
    parent.send_signal(signal.SIGTERM)
    assert parent.wait() == 128 + signal.SIGTERM
    assert "terminated; the same command continues" in (directory / "train.log").read_text()
    assert list((directory / "behavior").rglob("ckpt-*/agent.index"))
    with run_lock.hold(str(directory)):  # Its process has ended.
        pass
