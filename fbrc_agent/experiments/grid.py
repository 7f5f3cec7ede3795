"""A grid of training runs: settings x tasks x seeds.

Each run is in a directory of its own, `<task>/<setting>/seed<k>`, as `bin/train` leaves it. The
densities that settings share are fitted once for each task and seed, in
`<task>/<density>/seed<k>/behavior`.
"""

import dataclasses
import os
from collections.abc import Sequence
from typing import Any, NamedTuple, Optional

import gin

from fbrc_agent.environments import d4rl
from fbrc_agent.experiments.processes import Run, run_all
from fbrc_agent.utils.checks import is_integer
from fbrc_agent.utils.errors import InputError

_COUNTS = {"eval_interval": 0, "num_eval_episodes": 1}


@dataclasses.dataclass(frozen=True)
class Sizes:
    """What a grid is made of beside its settings, as `grid` has it."""

    runs_dir: str
    tasks: dict[str, Optional[str]]
    seeds: int = 5
    behavior_steps: int = 1_000_000
    fbrc_steps: int = 1_000_000
    eval_interval: int = 10_000
    num_eval_episodes: int = 10
    num_jobs: int = 1
    bindings: tuple[str, ...] = ()


_QUICK = {
    "seeds": 2,
    "behavior_steps": 2_000,
    "fbrc_steps": 3_000,
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
    behavior_steps: Optional[int] = None,
    fbrc_steps: Optional[int] = None,
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
      behavior_steps: Updates of the behavior density.
      fbrc_steps: Updates of the agent.
      eval_interval: Updates between evaluations; the last update is always evaluated.
      num_eval_episodes: Episodes of an evaluation.
      num_jobs: Runs at a time; of several, each has one intra-op thread.
      bindings: gin bindings for every run, after gin/fbrc.gin and those of its setting.
      runs_dir: Directory of the runs, which experiments may share; `root_dir`/runs by default.

    Raises:
      InputError: If a value is not as described, or a task is not known or has no environment.
    """
    given = {
        "tasks": tasks,
        "seeds": seeds,
        "behavior_steps": behavior_steps,
        "fbrc_steps": fbrc_steps,
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
        least = _COUNTS.get(name, 1)
        if not is_integer(values[name], least):
            raise InputError(
                f"grid.{name} is {values[name]!r}; it must be an integer of {least} or more."
            )
    texts = values.pop("bindings", ())
    if isinstance(texts, str) or not all(isinstance(text, str) for text in texts):
        raise InputError(
            f"grid.bindings is {texts!r}; it must be a list of gin bindings, such as "
            "['FbrcAgent.reward_bonus = 0.0']."
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
        if d4rl.get_task(task).environment is None:
            raise InputError(f"grid.tasks: there is no environment to evaluate {task!r} in.")


class Density(NamedTuple):
    """A behavior density: the name of its directory and the gin bindings that make it."""

    name: str
    bindings: tuple[str, ...] = ()


MIXTURE = Density("density-mixture")


class Setting(NamedTuple):
    """What is compared: an agent with some arguments changed, on a density.

    Attributes:
      name: Name of its directory; experiments that share their runs mean the same by it.
      label: What tables and legends call it.
      bindings: gin bindings after gin/fbrc.gin.
      density: The density it is given.
    """

    name: str
    label: str
    bindings: tuple[str, ...] = ()
    density: Density = MIXTURE


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
      The runs of the agent, complete or with numbers that went bad, by task, setting and seed.

    Raises:
      InputError: If a run fails, or its directory holds another run; the other runs were saved.
      interruption.Interruption: If a signal asked for it; the runs were saved.
    """
    cells = []
    runs: dict[str, Run] = {}  # By directory, in the order in which they start.
    for seed in range(sizes.seeds):
        for task in sizes.tasks:
            for setting in settings:
                density = _make_run(task, *setting.density, seed, sizes)
                density = runs.setdefault(density.root_dir, density)
                bindings = setting.density.bindings + setting.bindings
                run = _make_run(task, setting.name, bindings, seed, sizes, density)
                runs[run.root_dir] = run
                cells.append(Cell(task, setting, seed, run))
    run_all(list(runs.values()), sizes.num_jobs)
    order = [setting.name for setting in settings]
    tasks = list(sizes.tasks)
    return sorted(cells, key=lambda c: (tasks.index(c.task), order.index(c.setting.name), c.seed))


def _make_run(
    task: str,
    name: str,
    bindings: tuple[str, ...],
    seed: int,
    sizes: Sizes,
    density: Optional[Run] = None,
) -> Run:
    lines = (
        f"TASK = {task!r}",
        f"DATA = {sizes.tasks[task]!r}",
        f"SEED = {seed}",
        f"EVAL_INTERVAL = {sizes.eval_interval}",
        f"NUM_EVAL_EPISODES = {sizes.num_eval_episodes}",
    )
    return Run(
        os.path.join(sizes.runs_dir, task, name, f"seed{seed}"),
        f"{task}, {name}, seed {seed}",
        lines + bindings + sizes.bindings,
        sizes.fbrc_steps if density else sizes.behavior_steps,
        density,
    )
