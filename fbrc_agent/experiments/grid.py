"""A grid of training runs: settings x tasks x seeds.

Each run is in a directory of its own, `<task>/<setting>/seed<k>`, as `bin/train` leaves it.
Networks that settings share are trained once for each task and seed, in
`<task>/<pretraining>/seed<k>`.
"""

import dataclasses
import os
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, Optional, Union

import gin

from fbrc_agent.environments.tasks import get_task
from fbrc_agent.experiments.processes import Run, run_all
from fbrc_agent.utils import checks
from fbrc_agent.utils.errors import InputError

_QUICK = {
    "seeds": 2,
    "pretraining_steps": 2_000,
    "steps": 3_000,
    "eval_interval": 500,
    "num_eval_episodes": 5,
    "num_jobs": 2,
}


@gin.configurable("grid")
@dataclasses.dataclass(frozen=True)
class Sizes:
    """What a grid is made of besides its settings; gin binds its attributes as those of `grid`.

    Attributes:
      runs_dir: Directory of the runs, which experiments may share.
      tasks: Data by task id: an HDF5 path, 'embedded:NAME', or None for the task's own D4RL file.
      seeds: How many; they are 0, 1, ...
      pretraining_steps: Updates of the networks that settings share, such as behavior policies.
      steps: Updates of each run.
      eval_interval: Updates between evaluations; the last update is always evaluated.
      num_eval_episodes: Episodes of an evaluation.
      num_jobs: Runs at a time; of several, each has one intra-op thread.
      bindings: gin bindings for every run, after its gin file and those of its setting.

    Raises:
      InputError: If a value is not as described, or a task is not known or has no environment.
    """

    runs_dir: str
    tasks: Mapping[str, Optional[str]]
    seeds: int = 5
    pretraining_steps: int = 1_000_000
    steps: int = 1_000_000
    eval_interval: int = 10_000
    num_eval_episodes: int = 10
    num_jobs: int = 1
    bindings: Sequence[str] = ()

    def __post_init__(self) -> None:
        _check_tasks(self.tasks)
        for name in _QUICK:
            low = 0 if name == "eval_interval" else 1
            checks.check_integer(f"grid.{name}", getattr(self, name), low)
        texts = self.bindings
        if isinstance(texts, str) or not all(isinstance(text, str) for text in texts):
            raise InputError(
                f"grid.bindings is {texts!r}; it must be a list of gin bindings, such as "
                "['BATCH_SIZE = 64']."
            )


def make_sizes(root_dir: str, quick: bool, tasks: Mapping[str, Optional[str]]) -> Sizes:
    """Returns the paper's or the quick sizes (minutes on 2 cores), with what gin binds in place.

    Args:
      root_dir: Directory of the experiment; its runs are in `runs`.
      quick: Whether to start from the quick sizes.
      tasks: The tasks of the experiment.
    """
    defaults: dict[str, Any] = {"runs_dir": os.path.join(root_dir, "runs"), "tasks": tasks}
    defaults.update(_QUICK if quick else {})
    bound = gin.get_bindings("grid")
    return Sizes(**{name: value for name, value in defaults.items() if name not in bound})


def _check_tasks(tasks: Any) -> None:
    kinds = (str, type(None))
    if not (isinstance(tasks, Mapping) and tasks) or not all(
        isinstance(data, kinds) for data in tasks.values()
    ):
        raise InputError(
            f"grid.tasks is {tasks!r}; it must name the data of each task, such as "
            "{'hopper-medium-v2': None}."
        )
    for task in tasks:
        if get_task(task).environment is None:
            raise InputError(f"grid.tasks has {task!r}, which has no environment to evaluate in.")


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
            for setting in settings:
                pretrained = {}
                for part in setting.pretraining:
                    run = _make_run(sizes, task, seed, part, part.bindings, sizes.pretraining_steps)
                    pretrained[part.algorithm] = runs.setdefault(run.root_dir, run)
                bindings = [text for part in setting.pretraining for text in part.bindings]
                bindings += setting.bindings
                run = _make_run(sizes, task, seed, setting, bindings, sizes.steps, pretrained)
                runs[run.root_dir] = run
                cells.append(Cell(task, setting, seed, run))
    run_all(list(runs.values()), sizes.num_jobs)
    order = [setting.name for setting in settings]
    tasks = list(sizes.tasks)
    return sorted(cells, key=lambda c: (tasks.index(c.task), order.index(c.setting.name), c.seed))


def _make_run(
    sizes: Sizes,
    task: str,
    seed: int,
    part: Union[Setting, Pretraining],
    bindings: Sequence[str],
    num_updates: int,
    pretrained: Optional[Mapping[str, Run]] = None,
) -> Run:
    common = (
        f"TASK = {task!r}",
        f"DATA = {sizes.tasks[task]!r}",
        f"SEED = {seed}",
        f"EVAL_INTERVAL = {sizes.eval_interval}",
        f"NUM_EVAL_EPISODES = {sizes.num_eval_episodes}",
    )
    return Run(
        os.path.join(sizes.runs_dir, task, part.name, f"seed{seed}"),
        f"{task}, {part.name}, seed {seed}",
        part.gin_file,
        (*common, *bindings, *sizes.bindings),
        num_updates,
        pretrained or {},
    )
