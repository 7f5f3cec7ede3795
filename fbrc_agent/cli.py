"""The command line: a function for each command, with its flags, gin and one call."""

import argparse
import dataclasses
import functools
import logging
import os
import signal
import sys
import traceback
import warnings
from collections.abc import Sequence
from typing import Any, Callable, NoReturn, Optional

from fbrc_agent.training import configuration
from fbrc_agent.utils import os_errors, signals
from fbrc_agent.utils.errors import InputError, NotFiniteError


class _Parser(argparse.ArgumentParser):
    """A parser whose refusals are sentences like all others, without the usage."""

    def error(self, message: str) -> NoReturn:
        """Raises the refusal."""
        raise InputError(f"{message}; `{self.prog} --help` lists the flags.")


def _path(text: str) -> str:
    """The type of a flag that is a path: `--root_dir "$UNSET"` must not mean somewhere else."""
    if not text:
        raise argparse.ArgumentTypeError("is empty; it must be a path")
    return text


def _flag(*names: str, **options: Any) -> tuple[tuple[str, ...], dict[str, Any]]:
    """Returns arguments of `add_argument`."""
    return names, options


_GIN_FLAGS = (
    _flag("--gin_file", type=_path, nargs="+", action="extend", default=[], help="gin files"),
    _flag("--gin_bindings", nargs="+", action="extend", default=[], help="bindings, after files"),
)


COMMANDS: dict[str, Callable[[], int]] = {}


def _command(*flags: Any) -> Callable[[Callable[..., None]], Callable[[], int]]:
    """Makes a command of a function of its flags: it parses, runs, and returns the exit code.

    The docstring of the function is what `--help` says.
    What goes wrong is one sentence on stderr and the exit code 2; 3 for NaN or infinity.
    """

    def decorate(body: Callable[[argparse.Namespace], None]) -> Callable[[], int]:
        @functools.wraps(body)
        def command() -> int:
            name = body.__name__
            parser = _Parser(prog=name, description=body.__doc__)
            parser.add_argument("--debug", action="store_true", help="show an error's traceback")
            for names, options in flags:
                parser.add_argument(*names, **options)
            _set_up_libraries()
            try:
                with signals.handlers():
                    body(parser.parse_args())
                return 0
            except KeyboardInterrupt as error:
                number = getattr(error, "number", signal.SIGINT)
                what = "interrupted" if number == signal.SIGINT else "terminated"
                then = "continues" if name in ("train", "reproduce") else "starts over"
                print(f"\n{name}: {what}; the same command {then}.", file=sys.stderr)
                return 128 + number
            except Exception as error:
                sentence = _sentence(os_errors.original(error))
                if sentence is None:
                    raise
                if "--debug" in sys.argv:
                    traceback.print_exc()
                print(f"{name}: {' '.join(sentence.split())}", file=sys.stderr)
                return 3 if isinstance(error, NotFiniteError) else 2

        COMMANDS[body.__name__] = command
        return command

    return decorate


def _sentence(error: Exception) -> Optional[str]:
    """Returns what the user can act on; None for a mistake of this program."""
    if isinstance(error, (InputError, NotFiniteError)):
        return str(error)
    refused = os_errors.sentence(error)
    if refused is not None:
        return refused
    *_, (frame, _) = traceback.walk_tb(error.__traceback__)
    if isinstance(error, RuntimeError) and frame.f_globals["__name__"].startswith("gin."):
        return f"gin configuration: {error}."  # Such as an argument that nothing gives.
    # ValueError is what a constructor refuses.
    return str(error) if isinstance(error, (ValueError, OSError)) else None


def _set_up_libraries() -> None:
    """Sets TensorFlow's threads, and keeps out of the terminal what no user can act on.

    On two cores, two products of matrices at a time are faster than two threads in each
    (docs/performance.md); elsewhere the choice is TensorFlow's. What the environment has stays.
    """
    # At 2, TensorFlow still prints three errors about CUDA plug-ins on every machine.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    # tf_agents compares with literals by `is`, of which Python warns when it first compiles it.
    warnings.simplefilter("ignore", SyntaxWarning)
    if os.cpu_count() == 2:
        os.environ.setdefault("TF_NUM_INTRAOP_THREADS", "1")
        os.environ.setdefault("TF_NUM_INTEROP_THREADS", "2")


@_command(
    _flag("--algorithm", type=_path, help="what to train, e.g. fbrc, which is gin/fbrc.gin"),
    _flag("--task", help="D4RL task id or Gymnasium id; none: nothing is evaluated"),
    _flag("--data", help="file of transitions, D4RL task id or embedded:NAME; default the task's"),
    _flag("--steps", type=int, help="updates of the algorithm"),
    _flag("--seed", type=int, help="seed of weights, batches and samples"),
    _flag("--root_dir", type=_path, help="directory of the run; default runs/<gin file>"),
    _flag("--strategy", help="none, mirrored or multi_worker: replicas that share the updates"),
    *_GIN_FLAGS,
)
def train(flags: argparse.Namespace) -> None:
    """Trains an algorithm on a fixed data set, evaluates, exports, and prints a table.

    Example: train --algorithm fbrc --task hopper-medium-v2 --data mine.hdf5 --steps 200000.
    Without --algorithm and --gin_file it is the quick start, gin/quickstart.gin. Bindings that
    matter most: STEPS, BEHAVIOR_STEPS, BATCH_SIZE, EVAL_INTERVAL, NUM_EVAL_EPISODES.
    """
    from fbrc_agent.training import report, trainer

    algorithm = [] if flags.algorithm is None else [f"{flags.algorithm}.gin"]
    files = [*algorithm, *flags.gin_file] or ["quickstart.gin"]
    bindings = [
        *flags.gin_bindings,
        *configuration.common(flags.task, flags.data, flags.steps, flags.seed),
    ]
    if flags.strategy is not None:
        bindings.append(f"train.strategy = {flags.strategy!r}")
    configuration.parse(files, bindings)
    stem = os.path.splitext(os.path.basename(files[-1]))[0]
    print(report.table(trainer.train(flags.root_dir or os.path.join("runs", stem))))


@_command(
    _flag("--root_dir", type=_path, required=True, help="directory of a run"),
    _flag("--output", type=_path, required=True, help="directory of the model, e.g. models/hopper"),
    _flag("--version", type=int, help="default: the one after the newest"),
    _flag("--with_value", action="store_true", help="add the signature 'value', of the critic"),
    _flag("--format", default="serving", help="serving (default) or tf_agents"),
)
def export(flags: argparse.Namespace) -> None:
    """Writes the policy of a run as a SavedModel."""
    from fbrc_agent.training import run_directory, run_policies, trainer

    run_directory.read_identity(flags.root_dir)
    configuration.parse([os.path.join(flags.root_dir, "operative_config.gin")], [])
    algorithm = trainer.configured_algorithm()
    options = (flags.version, flags.format, flags.with_value)
    print(run_policies.export_run(flags.root_dir, flags.output, algorithm, *options))


@_command(
    _flag("--policy", type=_path, required=True, help="a SavedModel, or a directory of versions"),
    _flag("--task", help="D4RL task id or Gymnasium id; default: the model card's"),
    _flag("--episodes", type=int, default=10, help="number of episodes"),
    _flag("--seed", type=int, default=0, help="seed of the first episode"),
)
def evaluate(flags: argparse.Namespace) -> None:
    """Runs an exported policy, of versions the newest, in a task's environment."""
    from fbrc_agent.environments import gymnasium_environment, tasks
    from fbrc_agent.evaluation import rollouts
    from fbrc_agent.policies import model_card, policy_versions, saved_policy
    from fbrc_agent.training import report

    policy = policy_versions.newest(flags.policy)
    saved_policy.check_is_model(policy)
    named, references = model_card.read_task(policy)
    if flags.task is None and ":" in (named or ""):
        raise InputError(
            f"The policy's card names the task {named}, which imports a module; give --task "
            f"{named} if you trust it."
        )
    known = references if flags.task in (None, named) else None
    task = tasks.get_task(flags.task or named, known)
    if task.environment is None:
        what = "The policy's card names no task" if task.id is None else f"Task {task.id}"
        raise InputError(f"{what}: there is no environment to evaluate it in; give --task.")
    sizes = gymnasium_environment.sizes(task.environment)
    action_fn = saved_policy.load_action_fn(policy, *sizes)
    result = rollouts.evaluate(action_fn, task.environment, flags.episodes, flags.seed)
    print(report.evaluation_table(task, result))


@_command(
    _flag("--output", type=_path, required=True, help="HDF5 file to write"),
    *_GIN_FLAGS,
)
def collect(flags: argparse.Namespace) -> None:
    """Trains SAC online and writes what it saw as a D4RL-layout file."""
    from fbrc_agent.experiments import collect as collector

    if not flags.gin_file:
        raise InputError("--gin_file is needed, for example collect/pendulum.gin.")
    configuration.parse(flags.gin_file, flags.gin_bindings)
    collector.collect(output=flags.output)


@_command(
    _flag("root_dir", type=_path, nargs="+", help="directories of runs; seeds of one setting"),
    _flag("--output", type=_path, help="PNG to write; default <first root_dir>/curves.png"),
)
def plot(flags: argparse.Namespace) -> None:
    """Draws the learning curves of runs."""
    from fbrc_agent.experiments import figures

    print(figures.plot(flags.root_dir, flags.output))


@_command(
    _flag("--output", type=_path, default="benchmark.json", help="JSON file to write"),
    _flag("--quick", action="store_true", help="small sizes, to try it out"),
    _flag("--rounds", type=int, help="rounds of each measurement"),
    _flag("--only", nargs="+", action="extend", help="names of rows to measure"),
    _flag("--serving", action="store_true", help="the rows of exported policies"),
)
def benchmark(flags: argparse.Namespace) -> None:
    """Measures speed and memory side by side with SAC and CQL, and prints a table."""
    from fbrc_agent.experiments import benchmark as bench

    rows = bench.select_rows(flags.only, flags.serving)
    sizes = bench.QUICK_SIZES if flags.quick else bench.SIZES
    if flags.rounds is not None:
        sizes = dataclasses.replace(sizes, rounds=flags.rounds)
    configuration.parse(["fbrc.gin"], sizes.bindings)
    print(bench.table(bench.run(rows, sizes, flags.output)))


@_command(
    _flag(
        "source", type=_path, help="a file, folder or pattern, D4RL id, minari:ID, embedded:NAME"
    ),
    _flag("--output", type=_path, help="PNG to write; default <name of the source>.png"),
    *_GIN_FLAGS,
)
def data(flags: argparse.Namespace) -> None:
    """Describes a data set before anyone trains on it: tables, warnings, a picture.

    Example: data mine.csv --gin_bindings "load_dataset.columns = {'observations': 'state_*'}".
    What a run would be trained on, preprocessing included, is described.
    """
    from fbrc_agent.datasets import preprocessing, sources
    from fbrc_agent.experiments import data_report
    from fbrc_agent.utils import atomic_files

    output = flags.output or data_report.default_picture(flags.source)
    atomic_files.check_path(output)
    configuration.parse(flags.gin_file, flags.gin_bindings)
    with configuration.without_log(logging.WARNING):  # They are in the description.
        loaded = preprocessing.preprocess(sources.load_dataset(flags.source))
    print(data_report.describe(loaded))
    print(f"picture: {data_report.draw(loaded, output)}")


@_command(
    _flag("name", help="name of the experiment, e.g. bandit"),
    _flag("--quick", action="store_true", help="minutes on 2 cores"),
    _flag("--root_dir", type=_path, help="directory to write; default runs/reproduce/<name>"),
    _flag("--gin_bindings", nargs="+", action="extend", default=[], help="gin bindings"),
)
def reproduce(flags: argparse.Namespace) -> None:
    """Runs an experiment, the paper's or ours, and draws its figure."""
    from fbrc_agent import experiments

    experiment = experiments.get(flags.name)
    configuration.parse(experiments.GIN_FILES.get(flags.name, []), flags.gin_bindings)
    root_dir = flags.root_dir or os.path.join("runs", "reproduce", flags.name)
    os.makedirs(root_dir, exist_ok=True)  # A directory that cannot be created fails at once.
    report = experiment(root_dir, flags.quick)
    paths = report.write(root_dir, sys.argv[1:])
    print("\n".join([report.title, "", report.text.strip(), "", *paths]))


def main(arguments: Optional[Sequence[str]] = None) -> int:
    """Runs `python -m fbrc_agent.cli COMMAND ...`."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    if not arguments or arguments[0] not in COMMANDS:
        print(f"usage: python -m fbrc_agent.cli {{{','.join(COMMANDS)}}} ...", file=sys.stderr)
        return 2
    sys.argv[1:] = arguments[1:]
    return COMMANDS[arguments[0]]()


if __name__ == "__main__":
    sys.exit(main())
