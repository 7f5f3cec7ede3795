"""A grid of training runs: settings x tasks x seeds.

Each run is in a directory of its own, `<task>/<setting>/seed<k>`, as `bin/train` leaves it.
Networks that settings share are trained once for each task and seed, in
`<task>/<pretraining>/seed<k>`.
"""

import dataclasses
import os
from collections.abc import Sequence
from typing import Any, NamedTuple, Optional

import gin

from fbrc_agent.environments.tasks import get_task
from fbrc_agent.experiments.processes import Run, run_all
from fbrc_agent.utils import checks
from fbrc_agent.utils.errors import InputError


@dataclasses.dataclass(frozen=True)
class Sizes:
    """What a grid is made of besides its settings, as `grid` has it."""

    runs_dir: str
    tasks: dict[str, Optional[str]]
    seeds: int = 5
    pretraining_steps: int = 1_000_000
    steps: int = 1_000_000
    eval_interval: int = 10_000
    num_eval_episodes: int = 10
    num_jobs: int = 1
    bindings: tuple[str, ...] = ()


_QUICK = {
    "seeds": 2,
    "pretraining_steps": 2_000,
    "steps": 3_000,
    "eval_interval": 500,
    "num_eval_episodes": 5,
    "num_jobs": 2,
}


@gin.configurable(denylist=["root_dir", "quick", "default_tasks"])
def grid(
    root_dir: str,
    quick: bool,
    default_tasks: dict[str, Optional[str]],
    tasks: Optional[dict[str, Optional[str]]] = None,
    seeds: Optional[int] = None,
    pretraining_steps: Optional[int] = None,
    steps: Optional[int] = None,
    eval_interval: Optional[int] = None,
    num_eval_episodes: Optional[int] = None,
    num_jobs: Optional[int] = None,
    bindings: Optional[Sequence[str]] = None,
    runs_dir: Optional[str] = None,
) -> Sizes:
    """Returns the sizes of a grid: the paper's or the quick ones, with what gin binds in place.

    Args:
      root_dir: Directory of the experiment.
      quick: Whether to start from the quick sizes, minutes on 2 cores.
      default_tasks: `tasks`, if gin binds none.
      tasks: Data by task id: an HDF5 path, 'embedded:NAME', or None for the task's own D4RL file.
      seeds: How many; they are 0, 1, ...
      pretraining_steps: Updates of the networks that settings share, such as behavior policies.
      steps: Updates of each run.
      eval_interval: Updates between evaluations; the last update is always evaluated.
      num_eval_episodes: Episodes of an evaluation.
      num_jobs: Runs at a time; of several, each has one intra-op thread.
      bindings: gin bindings for every run, after its gin file and those of its setting.
      runs_dir: Directory of the runs, which experiments may share; `root_dir`/runs by default.

    Raises:
      InputError: If a value is not as described, or a task is not known or has no environment.
    """
    given = {
        "tasks": tasks,
        "seeds": seeds,
        "pretraining_steps": pretraining_steps,
        "steps": steps,
        "eval_interval": eval_interval,
        "num_eval_episodes": num_eval_episodes,
        "num_jobs": num_jobs,
        "bindings": bindings,
    }
    values: dict[str, Any] = {
        "tasks": default_tasks,
        **(_QUICK if quick else {}),
        **{name: value for name, value in given.items() if value is not None},
    }
    _check_tasks(values["tasks"])
    for name in (n for n in values if n not in ("tasks", "bindings")):
        checks.check_integer(f"grid.{name}", values[name], 0 if name == "eval_interval" else 1)
    texts = values.pop("bindings", ())
    if isinstance(texts, str) or not all(isinstance(text, str) for text in texts):
        raise InputError(
            f"grid.bindings is {texts!r}; it must be a list of gin bindings, such as "
            "['BATCH_SIZE = 64']."
        )
    return Sizes(runs_dir or os.path.join(root_dir, "runs"), bindings=tuple(texts), **values)


def _check_tasks(tasks: Any) -> None:
    is_right = isinstance(tasks, dict) and all(
        isinstance(data, (str, type(None))) for data in tasks.values()
    )
    if not is_right or not tasks:
        raise InputError(
            f"grid.tasks is {tasks!r}; it must name the data of each task, such as "
            "{'hopper-medium-v2': None}."
        )
    for task in tasks:
        if get_task(task).environment is None:
            raise InputError(f"grid.tasks: there is no environment to evaluate {task!r} in.")


class Pretraining(NamedTuple):
    """A run of each task and seed whose trained network the runs of a setting take.

    Attributes:
      algorithm: The name of its algorithm.
      name: Name of its directory; settings that share its runs mean the same by it.
      gin_file: gin file of its algorithm.
      bindings: gin bindings that make its network, for it and for the runs that take it.
    """

    algorithm: str
    name: str
    gin_file: str
    bindings: tuple[str, ...] = ()


class Setting(NamedTuple):
    """What is compared: an algorithm with some arguments changed.

    Attributes:
      name: Name of its directory; experiments that share their runs mean the same by it.
      label: What tables and legends call it.
      gin_file: gin file of its algorithm.
      bindings: gin bindings after the gin file.
      pretraining: The runs whose networks it takes; an algorithm that is missing here and trained
        first is trained by the run itself.
      color: Its color in all pictures; None for one by the order of settings.
    """

    name: str
    label: str
    gin_file: str
    bindings: tuple[str, ...] = ()
    pretraining: tuple[Pretraining, ...] = ()
    color: Optional[str] = None


class Cell(NamedTuple):
    """A run of a grid and what it is of."""

    task: str
    setting: Setting
    seed: int
    run: Run


def run_grid(settings: Sequence[Setting], sizes: Sizes) -> list[Cell]:
    """Runs what is left of a grid.

    Args:
      settings: What is compared.
      sizes: Tasks, seeds and updates.

    Returns:
      The runs, complete or ended by NaN or infinity, by task, setting and seed.

    Raises:
      InputError: If a run fails, or its directory holds another run; the other runs were saved.
      signals.Interruption: If a signal asked for it; the runs were saved.
    """
    cells = []
    runs: dict[str, Run] = {}  # By directory, in the order in which they start.
    for seed in range(sizes.seeds):
        for task in sizes.tasks:
            common = _common_bindings(task, seed, sizes)
            for setting in settings:
                pretrained: dict[str, Run] = {}
                made_with: tuple[str, ...] = ()
                for part in setting.pretraining:
                    run = Run(
                        *_place(sizes, task, part.name, seed),
                        part.gin_file,
                        (*common, *part.bindings, *sizes.bindings),
                        sizes.pretraining_steps,
                    )
                    pretrained[part.algorithm] = runs.setdefault(run.root_dir, run)
                    made_with += part.bindings
                run = Run(
                    *_place(sizes, task, setting.name, seed),
                    setting.gin_file,
                    (*common, *made_with, *setting.bindings, *sizes.bindings),
                    sizes.steps,
                    pretrained,
                )
                runs[run.root_dir] = run
                cells.append(Cell(task, setting, seed, run))
    run_all(list(runs.values()), sizes.num_jobs)
    order = [setting.name for setting in settings]
    tasks = list(sizes.tasks)
    return sorted(cells, key=lambda c: (tasks.index(c.task), order.index(c.setting.name), c.seed))


def _place(sizes: Sizes, task: str, name: str, seed: int) -> tuple[str, str]:
    """Returns the directory of a run and its title in messages."""
    directory = os.path.join(sizes.runs_dir, task, name, f"seed{seed}")
    return directory, f"{task}, {name}, seed {seed}"


def _common_bindings(task: str, seed: int, sizes: Sizes) -> tuple[str, ...]:
    return (
        f"TASK = {task!r}",
        f"DATA = {sizes.tasks[task]!r}",
        f"SEED = {seed}",
        f"EVAL_INTERVAL = {sizes.eval_interval}",
        f"NUM_EVAL_EPISODES = {sizes.num_eval_episodes}",
    )
