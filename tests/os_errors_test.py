"""Signals, two runs at once, and what the system refuses: a run ends well and can resume."""

import contextlib
import errno
import json
import os
import pathlib
import resource
import signal
import subprocess
import sys
import time

import pytest
import tensorflow as tf
import tqdm

from fbrc_agent.training import run_log, stage
from fbrc_agent.utils import os_errors, run_lock, signals
from fbrc_agent.utils.errors import InputError
from tests.helpers import tiny_runs
from tests.training import strategy_test


def start(code, *arguments, environment=()):
    """Starts Python code; unlike a shell's background job, it heeds the interrupt."""
    return subprocess.Popen(
        [sys.executable, "-c", code, *map(str, arguments)],
        env={
            **os.environ,
            "PYTHONPATH": str(tiny_runs.ROOT),
            "TF_CPP_MIN_LOG_LEVEL": "3",
            **dict(environment),
        },
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )


@pytest.fixture
def second_stage(tiny_run, pendulum_data):
    """Runs only the second stage of a tiny run; returns the exit code."""

    def run(root_dir, **options):
        return tiny_runs.run_command(
            *second_stage_arguments(tiny_run, pendulum_data, root_dir, options)
        )

    return run


def second_stage_arguments(tiny_run, data, root_dir, options):
    binding = f"train.pretrained = {{'behavior': '{tiny_run / 'behavior'}'}}"
    return tiny_runs.train_arguments(
        root_dir, data, **{"BEHAVIOR_STEPS": 0, **options}, bindings=[binding]
    )


def lines_of_second_stage(root_dir):
    lines = [line for line in run_log.read_metrics(str(root_dir)) if line["stage"] == "fbrc"]
    return [{k: v for k, v in line.items() if k != "seconds"} for line in lines]


# Signals, without a run.


@pytest.fixture
def heeded():
    """The signals as in a terminal: a shell's background job ignores the interrupt."""
    handlers = {signal.SIGINT: signal.default_int_handler, signal.SIGTERM: signal.SIG_DFL}
    before = {number: signal.signal(number, handler) for number, handler in handlers.items()}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signal_raises_at_once(heeded, number):
    with pytest.raises(signals.Interruption) as raised:
        with signals.handlers():
            os.kill(os.getpid(), number)
            time.sleep(10)
    assert raised.value.number == number


def test_deferred_signal_is_only_noted():
    with signals.handlers():
        with pytest.raises(signals.Interruption), signals.deferred():
            os.kill(os.getpid(), signal.SIGTERM)
            assert signals.requested() == signal.SIGTERM
            with pytest.raises(signals.Interruption):
                signals.check()


def test_handlers_leave_no_trace():
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    with contextlib.suppress(signals.Interruption), signals.handlers():
        assert signal.getsignal(signal.SIGTERM) not in before
        os.kill(os.getpid(), signal.SIGTERM)
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == before
    assert signals.requested() is None


def test_ignored_signal_stays_ignored():
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with signals.handlers():
            os.kill(os.getpid(), signal.SIGINT)
            assert signals.requested() is None
    finally:
        signal.signal(signal.SIGINT, before)


def test_second_interrupt_raises_also_where_it_is_deferred(heeded):
    with pytest.raises(KeyboardInterrupt) as raised, signals.handlers(), signals.deferred():
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(0.4)
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(10)
    assert not isinstance(raised.value, signals.Interruption)


def test_an_interrupt_that_comes_twice_at_once_is_one(heeded):
    with pytest.raises(signals.Interruption), signals.handlers(), signals.deferred():
        for _ in range(2):
            os.kill(os.getpid(), signal.SIGINT)
        time.sleep(0.1)


@pytest.mark.parametrize(
    "updates, seconds, fitting",
    [(1, 0.02, 25), (25, 0.5, 25), (25, 1.0, 12), (1, 0.0, 100), (1, 1e-4, 100), (5, 15.0, 1)],
)
def test_calls_of_the_learner_take_half_a_second_and_have_1_to_100_updates(
    updates, seconds, fitting
):
    assert stage.fitting_updates(updates, seconds) == fitting


# Signals during a run.


def start_run(tiny_run, data, root_dir, **options):
    code = "import sys; from fbrc_agent import cli; sys.exit(cli.main(sys.argv[1:]))"
    return start(code, *second_stage_arguments(tiny_run, data, root_dir, options))


def wait_for_line(process, root_dir, step):
    deadline = time.monotonic() + 120
    while not any(line["step"] >= step for line in tiny_runs.read_lines(root_dir)):
        assert process.poll() is None, process.stderr.read()
        assert time.monotonic() < deadline
        time.sleep(0.02)


def finish(process):
    """Returns the exit code, the last line of stderr and the seconds that it took."""
    began = time.monotonic()
    _, errors = process.communicate(timeout=60)
    assert "Traceback" not in errors
    return process.returncode, errors.splitlines()[-1], time.monotonic() - began


def checkpoint_steps(root_dir):
    paths = (root_dir / "fbrc" / "train" / "checkpoints").glob("ckpt-*/manifest.json")
    return sorted(int(path.parent.name.split("-")[1]) for path in paths)


@pytest.mark.slow
def test_sigterm_during_updates_saves_what_is_done(tiny_run, pendulum_data, tmp_path, second_stage):
    root_dir = tmp_path / "run"
    options = {"EVAL_INTERVAL": 0, "train.log_interval": 10, "train.checkpoint_interval": 0}
    process = start_run(tiny_run, pendulum_data, root_dir, STEPS=10**6, **options)
    wait_for_line(process, root_dir, 200)
    process.send_signal(signal.SIGTERM)
    code, message, seconds = finish(process)
    assert (code, message) == (143, "train: terminated; the same command continues.")
    assert seconds < 10
    (step,) = checkpoint_steps(root_dir)
    assert step >= 200
    assert second_stage(root_dir, STEPS=step + 15, **options) == 0
    steps = [line["step"] for line in lines_of_second_stage(root_dir) if "critic_loss" in line]
    assert steps == list(range(10, step + 16, 10))


@pytest.mark.slow
def test_sigterm_during_an_evaluation_gives_it_up(tiny_run, pendulum_data, tmp_path, second_stage):
    root_dir = tmp_path / "run"
    process = start_run(tiny_run, pendulum_data, root_dir, NUM_EVAL_EPISODES=5000)
    wait_for_line(process, root_dir, 10)
    time.sleep(1)
    process.send_signal(signal.SIGTERM)
    code, _, seconds = finish(process)
    assert code == 143
    assert seconds < 10
    assert checkpoint_steps(root_dir) == [10]
    assert second_stage(root_dir) == 0
    assert lines_of_second_stage(root_dir) == lines_of_second_stage(tiny_run)


@pytest.mark.slow
def test_sigterm_of_one_worker_saves_and_ends_all(pendulum_data, tmp_path):
    root_dir = tmp_path / "run"
    options = {"STEPS": 10**6, "NUM_EVAL_EPISODES": 0, "train.checkpoint_interval": 10**6}
    arguments = tiny_runs.train_arguments(root_dir, pendulum_data, **options)
    code = "import sys; from fbrc_agent import cli; sys.exit(cli.main(sys.argv[1:]))"
    workers = []
    try:
        for environment in strategy_test.cluster_environments(2):
            environment = {**environment, "CUDA_VISIBLE_DEVICES": "-1"}
            workers.append(
                start(code, *arguments, "--strategy", "multi_worker", environment=environment)
            )
        wait_for_line(workers[0], root_dir, 100)
        workers[1].send_signal(signal.SIGTERM)
        assert [finish(worker)[0] for worker in workers] == [143, 143]
    finally:
        for worker in workers:
            worker.kill()
    (step,) = checkpoint_steps(root_dir)
    assert step >= 100


# Two runs.


def test_directory_is_one_process_s(tmp_path):
    with run_lock.hold(str(tmp_path)) as lock:
        lock.sign()
        with pytest.raises(InputError, match=f"in use by process {os.getpid()} on "):
            with run_lock.hold(str(tmp_path)):
                pass
    with run_lock.hold(str(tmp_path)):
        assert json.loads((tmp_path / "lock").read_text())["pid"] == os.getpid()


def test_command_is_refused_where_another_process_runs(tmp_path, pendulum_data, capsys):
    root_dir = tmp_path / "run"
    with run_lock.hold(str(root_dir)) as lock:
        lock.sign()
        before = tiny_runs.read_files(root_dir)
        assert tiny_runs.train(root_dir, pendulum_data) == 2
        assert tiny_runs.read_files(root_dir) == before
    error = capsys.readouterr().err
    assert error.startswith(f"train: {root_dir} is in use by process {os.getpid()} on ")
    assert error.endswith("wait until that run ends, or give another root_dir.\n")
    assert error.count("\n") == 1


def test_lock_of_a_killed_process_is_no_obstacle(tmp_path):
    code = """if True:
        import sys, time
        from fbrc_agent.utils import run_lock
        with run_lock.hold(sys.argv[1]) as lock:
            lock.sign()
            print("ready", flush=True)
            time.sleep(60)
    """
    with start(code, tmp_path) as process:
        process.stdout.readline()
        with pytest.raises(InputError, match=f"process {process.pid} "):
            with run_lock.hold(str(tmp_path)):
                pass
        process.kill()
        process.wait()
    with run_lock.hold(str(tmp_path)):
        pass


# What the machine refuses.


@contextlib.contextmanager
def mounted(directory, options):
    """A tmpfs of its own; a test that may not mount is skipped."""
    directory.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(directory)]
    try:
        done = subprocess.run(command, capture_output=True, text=True)
    except FileNotFoundError:
        pytest.skip("There is no command mount here.")
    if done.returncode != 0:
        pytest.skip(f"Mounting is not permitted here: {done.stderr.strip()}")
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", str(directory)], check=True)  # A failure may use it.


def assert_fault(errors, path, number, advice):
    """The last line names a file below a path, the reason and what to do; there is no traceback."""
    assert "Traceback" not in errors
    message = errors.splitlines()[-1]
    assert message.startswith(f"train: {path}")
    assert os.strerror(number) in message
    assert message.endswith(f"; {advice}.")


def assert_nothing_half_written(root_dir):
    """No temporary files; what is there can be read."""
    assert [p for p in root_dir.rglob("*") if "tmp" in p.name or "temp" in p.name] == []
    for path in root_dir.rglob("*.json"):
        json.loads(path.read_text())


@pytest.mark.slow
def test_run_goes_on_after_a_full_disk(tiny_run, tmp_path, second_stage, capsys):
    """Full at checkpoints and at exports; in the end all is as if there had been room."""
    with mounted(tmp_path / "disk", "size=100k"):
        root_dir = tmp_path / "disk" / "run"
        places = set()
        for size in range(100, 1000, 50):
            remount = ["mount", "-o", f"remount,size={size}k", str(tmp_path / "disk")]
            subprocess.run(remount, check=True)
            if second_stage(root_dir) == 0:
                break
            errors = capsys.readouterr().err
            assert_fault(
                errors,
                root_dir,
                errno.ENOSPC,
                "free some space and give the same command again",
            )
            places.add(errors.splitlines()[-1].split(f"{root_dir}/")[1].split("/")[0])
        assert {"fbrc", "policies"} <= places
        assert lines_of_second_stage(root_dir) == lines_of_second_stage(tiny_run)
        assert_nothing_half_written(root_dir)


@pytest.mark.slow
def test_run_goes_on_after_a_limit_of_file_sizes(tiny_run, pendulum_data, tmp_path, second_stage):
    root_dir = tmp_path / "run"
    code = """if True:
        import resource, sys
        from fbrc_agent import cli
        resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
        sys.exit(cli.main(sys.argv[1:]))
    """
    arguments = second_stage_arguments(tiny_run, pendulum_data, root_dir, {})
    process = start(code, *arguments)
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 2
    advice = "raise the limit of a file's size (ulimit -f) and give the same command again"
    assert_fault(errors, root_dir, errno.EFBIG, advice)
    assert second_stage(root_dir) == 0
    assert lines_of_second_stage(root_dir) == lines_of_second_stage(tiny_run)
    assert_nothing_half_written(root_dir)


def test_read_only_directory_is_named(tmp_path, pendulum_data, capsys):
    with mounted(tmp_path / "disk", "ro"):
        assert tiny_runs.train(tmp_path / "disk" / "run", pendulum_data) == 2
    path = tmp_path / "disk" / "run"
    assert_fault(capsys.readouterr().err, path, errno.EROFS, "give a place that can be written")


def test_directory_below_a_file_is_named(tmp_path, pendulum_data, capsys):
    (tmp_path / "file").touch()
    assert tiny_runs.train(tmp_path / "file" / "run", pendulum_data) == 2
    advice = "give a path whose parents are directories"
    assert_fault(capsys.readouterr().err, tmp_path / "file", errno.ENOTDIR, advice)


def test_debug_shows_the_traceback_of_a_fault(tmp_path, pendulum_data, capsys):
    (tmp_path / "file").touch()
    arguments = tiny_runs.train_arguments(tmp_path / "file" / "run", pendulum_data)
    assert tiny_runs.run_command(*arguments, "--debug") == 2
    errors = capsys.readouterr().err
    assert "Traceback" in errors
    assert errors.splitlines()[-1].startswith(f"train: {tmp_path}")


@contextlib.contextmanager
def open_files_left(count):
    """Lowers the limit of open files, and fills it up but for a few."""
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    highest = max(int(name) for name in os.listdir("/proc/self/fd"))
    files = []
    resource.setrlimit(resource.RLIMIT_NOFILE, (highest + 1 + count, limits[1]))
    try:
        with contextlib.suppress(OSError):
            while True:
                files.append(os.open(os.devnull, os.O_RDONLY))
        for _ in range(count):
            os.close(files.pop())
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
        for file in files:
            os.close(file)


@pytest.mark.slow
def test_run_goes_on_when_there_are_open_files_again(tiny_run, tmp_path, second_stage, capsys):
    root_dir = tmp_path / "run"
    with open_files_left(4):
        assert second_stage(root_dir) == 2
    advice = "raise the limit of open files (ulimit -n) and give the same command again"
    assert_fault(capsys.readouterr().err, "", errno.EMFILE, advice)
    assert second_stage(root_dir) == 0
    assert lines_of_second_stage(root_dir) == lines_of_second_stage(tiny_run)


def test_error_of_tensorflow_names_the_file():
    with pytest.raises(tf.errors.OpError) as raised:
        tf.io.write_file("/dev/full", "x" * 100_000)
    sentence = os_errors.sentence(raised.value)
    assert sentence.startswith("/dev/full; No space left on device; free some space")


def test_error_of_a_descriptor_is_a_sentence():
    with pytest.raises(OSError) as raised, open("/dev/full", "w") as file:
        file.write("x")
    assert os_errors.sentence(raised.value).startswith("No space left on device; free some space")


def test_mistake_of_the_program_is_no_fault():
    assert os_errors.sentence(KeyError("step")) is None
    assert os_errors.sentence(tf.errors.InvalidArgumentError(None, None, "shapes differ")) is None


# The clock.


def test_clock_that_goes_backwards_leaves_no_negative_number(tmp_path, monkeypatch, capsys):
    now = [time.time()]

    def earlier_each_time():
        now[0] -= 3600
        return now[0]

    monkeypatch.setattr(time, "time", earlier_each_time)
    monkeypatch.setattr(tqdm.std, "time", earlier_each_time)
    log = run_log.StageLog(str(tmp_path), ["fbrc"], "fbrc", 0, 30)
    for step in (10, 20, 30):
        log.start_clock()
        time.sleep(0.6)
        log.stop_clock()
        log.write(step, {"critic_loss": 1.0})
        log.advance(step)
    log.close()
    seconds = [line["seconds"] for line in tiny_runs.read_lines(pathlib.Path(tmp_path))]
    assert seconds == sorted(seconds)
    assert seconds[0] > 0
    bar = capsys.readouterr().err
    assert "30/30" in bar
    assert "-" not in bar


def test_what_the_machine_refuses_is_not_called_damage():
    refused = OSError(errno.EMFILE, os.strerror(errno.EMFILE), "saved_model.pb")
    with pytest.raises(OSError) as raised:
        os_errors.damage(refused)
    assert raised.value is refused
    assert (
        os_errors.damage(ValueError("Wrong wire type in tag.\nmore")) == "Wrong wire type in tag."
    )
