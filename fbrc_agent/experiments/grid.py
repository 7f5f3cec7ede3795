"""A grid of training runs: settings x tasks x seeds.

Each run is in a directory of its own, `<task>/<setting>/seed<k>`, as `bin/train` leaves it, with
`run.gin`, its bindings, and `train.log`, what its process printed, beside. Networks that settings
share are trained once for each task and seed.
"""

import dataclasses
import itertools
import os
from collections.abc import Mapping, Sequence
from typing import NamedTuple, Optional

import gin

from fbrc_agent.environments.tasks import get_task
from fbrc_agent.experiments import curves
from fbrc_agent.utils import atomic_files, checks, json_files
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
        for name in _QUICK:
            low = 0 if name == "eval_interval" else 1
            checks.check_integer(f"grid.{name}", getattr(self, name), low)
        data = list(self.tasks.values()) if isinstance(self.tasks, Mapping) else []
        if not data or set(map(type, data)) - {str, type(None)}:
            raise InputError(
                f"grid.tasks is {self.tasks!r}; it must name the data of each task, such as "
                "{'hopper-medium-v2': None}."
            )
        for task in self.tasks:
            found = get_task(task)
            if found.environment is None or found.reference_scores is None:
                raise InputError(
                    f"grid.tasks has {task!r}; it must have an environment to evaluate in and "
                    "reference scores to normalize its returns."
                )
        if isinstance(self.bindings, str) or set(map(type, self.bindings)) - {str}:
            raise InputError(
                f"grid.bindings is {self.bindings!r}; it must be a list of gin bindings, such as "
                "['BATCH_SIZE = 64']."
            )


def make_sizes(root_dir: str, quick: bool, tasks: Mapping[str, Optional[str]]) -> Sizes:
    """Returns the paper's or the quick sizes (minutes on 2 cores), with what gin binds in place.

    Args:
      root_dir: Directory of the experiment; its runs are in `runs`.
      quick: Whether to start from the quick sizes.
      tasks: The tasks of the experiment.
    """
    defaults = {"runs_dir": os.path.join(root_dir, "runs"), "tasks": tasks}
    return Sizes(**{**defaults, **(_QUICK if quick else {}), **gin.get_bindings("grid")})


class Setting(NamedTuple):
    """What is compared: an algorithm with some arguments changed.

    Attributes:
      name: Name of its directory; experiments that share their runs mean the same by it.
      label: What tables and legends call it.
      gin_file: gin file of its algorithm.
      color: Its color in all pictures.
      bindings: gin bindings after the gin file.
      pretraining: The settings whose trained networks it takes, by the names of their algorithms.
        Their bindings are in force in its own runs too. An algorithm that is missing here and
        trained first is trained by the run itself.
    """

    name: str
    label: str
    gin_file: str
    color: str
    bindings: tuple[str, ...] = ()
    pretraining: Mapping[str, "Setting"] = {}

    @property
    def all_bindings(self) -> list[str]:
        """Its bindings, after those that make the networks that it takes."""
        taken = [binding for setting in self.pretraining.values() for binding in setting.bindings]
        return [*taken, *self.bindings]


@dataclasses.dataclass(frozen=True, eq=False)
class Run:
    """A run of a grid.

    Attributes:
      sizes: Those of the grid.
      task: Its task.
      setting: Its setting.
      seed: Its seed.
      steps: Updates of its algorithm.
      pretrained: The runs whose trained networks it takes, by the names of their algorithms.
      is_shared: Whether other runs take its network.
    """

    sizes: Sizes
    task: str
    setting: Setting
    seed: int
    steps: int
    pretrained: Mapping[str, "Run"] = dataclasses.field(default_factory=dict)
    is_shared: bool = False

    @property
    def root_dir(self) -> str:
        """Its directory."""
        return os.path.join(self.sizes.runs_dir, self.task, self.setting.name, f"seed{self.seed}")

    @property
    def title(self) -> str:
        """What it is called in messages."""
        return f"{self.task}, {self.setting.name}, seed {self.seed}"

    def path(self, name: str) -> str:
        """Returns the path of a file or directory in its directory."""
        return os.path.join(self.root_dir, name)

    def completed_updates(self) -> int:
        """Returns the updates with which it was completed last; 0 if it never was."""
        result = json_files.read_json(self.path("result.json"), ["algorithm", "stages"])
        return result["stages"][result["algorithm"]]["steps"] if result else 0

    def is_done(self) -> bool:
        """Whether nothing is left to run; NaN is an outcome, unless other runs need the network."""
        log = None if self.is_shared else self.log()
        has_nan = log is not None and log.event_step("not_finite") is not None
        return has_nan or self.completed_updates() >= self.steps

    def log(self) -> Optional[curves.LoggedRun]:
        """Returns what it logged within its updates; None before it starts."""
        is_there = os.path.exists(self.path("run.json"))
        return curves.read(self.root_dir, self.steps) if is_there else None

    def check(self) -> None:
        """Checks that its directory holds this run or none, by the bindings that it was given.

        `train` itself checks every value that is used, of a run that is not complete.

        Raises:
          InputError: If it holds another one, or a shared network of other updates.
        """
        steps, there, wanted = self.completed_updates(), "", ""
        if self.is_shared and steps not in (0, self.steps):
            # Other runs may have taken its network as it is.
            there, wanted = f"{steps} updates", str(self.steps)
        elif os.path.exists(self.path("run.gin")):
            with open(self.path("run.gin"), encoding="utf-8") as file:
                used = file.read().partition("\n\n")[2].splitlines()
            there = ", ".join(line for line in used if line not in self._lines())
            wanted = ", ".join(line for line in self._lines() if line not in used)
        if there or wanted:
            default = f"what {self.setting.gin_file} has"
            raise InputError(
                f"{self.root_dir} holds a run of {there or default}, not {wanted or default}; give "
                "another root_dir to start a new one."
            )

    def write_gin(self) -> None:
        """Writes `run.gin`: numbers that may change, then the lines that make it this run.

        It is for `bin/train`, after the setting's gin file.
        """
        os.makedirs(self.root_dir, exist_ok=True)
        numbers = {
            "STEPS": self.steps,
            "EVAL_INTERVAL": self.sizes.eval_interval,
            "NUM_EVAL_EPISODES": self.sizes.num_eval_episodes,
            "train.log_interval": max(1, min(1000, self.steps // 100)),
            "train.pretrained": {name: run.path(name) for name, run in self.pretrained.items()},
        }
        lines = [*(f"{name} = {value!r}" for name, value in numbers.items()), "", *self._lines()]
        atomic_files.write_text(self.path("run.gin"), "\n".join(lines) + "\n")

    def _lines(self) -> list[str]:
        data = self.sizes.tasks[self.task]
        lines = [f"TASK = {self.task!r}", f"DATA = {data!r}", f"SEED = {self.seed}"]
        heading = f"# {self.setting.gin_file} with"
        return [heading, *lines, *self.setting.all_bindings, *self.sizes.bindings]


def make_runs(settings: Sequence[Setting], sizes: Sizes) -> list[Run]:
    """Returns the runs of a grid by task, setting and seed; none is started."""
    shared: dict[str, Run] = {}
    runs = []
    for task, setting, seed in itertools.product(sizes.tasks, settings, range(sizes.seeds)):
        taken = {}
        for name, part in setting.pretraining.items():
            run = Run(sizes, task, part, seed, sizes.pretraining_steps, is_shared=True)
            taken[name] = shared.setdefault(run.root_dir, run)
        runs.append(Run(sizes, task, setting, seed, sizes.steps, taken))
    return runs
