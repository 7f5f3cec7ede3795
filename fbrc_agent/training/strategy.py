"""Training on several devices or machines: the strategy of a run, and what its workers share."""

import atexit
import json
import os
import shutil
import tempfile
from typing import Callable, Optional

import tensorflow as tf

from fbrc_agent.utils import checks, signals
from fbrc_agent.utils.errors import InputError


def create_strategy(name: str, logical_cpus: Optional[int] = None) -> tf.distribute.Strategy:
    """Returns a strategy; to be called before anything else of TensorFlow.

    Args:
      name: 'none': one replica. 'mirrored': one replica on each GPU of this machine, or on each
        of its logical CPUs where it has no GPU. 'multi_worker': one replica on each GPU (or one
        on the CPU) of each worker of the cluster that the environment variable `TF_CONFIG`
        describes; the same command is started on every worker.
      logical_cpus: For 'mirrored', into how many devices TensorFlow is to divide the CPU; they
        are then the replicas, whether or not there are GPUs. None for what TensorFlow does by
        itself, one.

    Raises:
      InputError: If there is no such strategy, `TF_CONFIG` is missing or wrong, or TensorFlow has
        started and cannot divide the CPU any more.
    """
    if name == "none":
        return tf.distribute.get_strategy()
    if name == "mirrored":
        devices = None if logical_cpus is None else _divide_cpu(logical_cpus)
        return tf.distribute.MirroredStrategy(devices)
    if name == "multi_worker":
        _check_cluster(os.environ.get("TF_CONFIG"))
        strategy = tf.distribute.MultiWorkerMirroredStrategy()
        signals.renew()
        return strategy
    raise InputError(f"strategy is {name!r}; it must be 'none', 'mirrored' or 'multi_worker'.")


def worker_index(strategy: tf.distribute.Strategy) -> int:
    """Returns the number of this worker in its cluster; 0 is the chief, and where there is none."""
    resolver = strategy.cluster_resolver
    if resolver is None or resolver.task_type in (None, "chief"):
        return 0
    return resolver.task_id + len(resolver.cluster_spec().as_dict().get("chief", []))


def own_directory(strategy: tf.distribute.Strategy, root_dir: str) -> str:
    """Returns where this worker keeps a run: the chief in root_dir, others in a copy of it.

    All workers must save checkpoints at the same time, but only the chief's are wanted. The copy is
    temporary; with it each worker resumes from where the chief does.
    """
    if worker_index(strategy) == 0:
        return root_dir
    temporary = tempfile.mkdtemp(prefix="fbrc_worker_")
    atexit.register(shutil.rmtree, temporary, ignore_errors=True)
    copy = os.path.join(temporary, "run")
    if os.path.isdir(root_dir):
        # The chief may be writing, under a temporary name, that the run begins.
        shutil.copytree(root_dir, copy, ignore=shutil.ignore_patterns("*.tmp"))
    return copy


def check_same_step(strategy: tf.distribute.Strategy, step: int) -> None:
    """Waits until all workers come here, and checks that all are at the same step.

    Raises:
      InputError: If they are not.
    """
    if _total(strategy)(step) != step * strategy.num_replicas_in_sync:
        raise InputError(
            f"This worker is at update {step}, others are at another one; root_dir must be the "
            "same directory, on a file system that all workers share."
        )


def has_workers(strategy: tf.distribute.Strategy) -> bool:
    """Returns whether a run has several processes."""
    return isinstance(strategy, tf.distribute.MultiWorkerMirroredStrategy)


def any_worker(strategy: tf.distribute.Strategy) -> Callable[[bool], bool]:
    """Returns a function that returns to all workers whether it is true of one of them.

    All workers must call it equally often; each waits there for the others.
    """
    if not has_workers(strategy):
        return lambda here: here
    total = _total(strategy)
    return lambda here: total(here) > 0


def _total(strategy: tf.distribute.Strategy) -> Callable[[float], float]:
    """Returns a function that sums a number of each worker over all replicas."""

    @tf.function(autograph=False)
    def total(here: tf.Tensor) -> tf.Tensor:
        return strategy.reduce(tf.distribute.ReduceOp.SUM, strategy.run(tf.identity, [here]), None)

    return lambda here: float(total(tf.constant(float(here), tf.float64)))


def _divide_cpu(count: int) -> list[str]:
    """Returns the names of that many logical CPUs, after making them."""
    checks.check_integer("logical_cpus", count, 1)
    cpu = tf.config.list_physical_devices("CPU")[0]
    try:
        tf.config.set_logical_device_configuration(
            cpu, [tf.config.LogicalDeviceConfiguration()] * count
        )
    except RuntimeError as error:
        raise InputError(
            f"logical_cpus is {count}, but TensorFlow has started in this process and cannot "
            "divide the CPU any more."
        ) from error
    return [device.name for device in tf.config.list_logical_devices("CPU")]


def _check_cluster(config: Optional[str]) -> None:
    form = '{"cluster": {"worker": ["host:port", ...]}, "task": {"type": "worker", "index": 0}}'
    if not config:
        raise InputError(f"strategy is 'multi_worker', which needs TF_CONFIG, for example {form}.")
    try:
        parsed = json.loads(config)
        task = parsed["task"]
        parsed["cluster"][task["type"]][int(task["index"])]
    except (ValueError, KeyError, IndexError, TypeError) as error:
        raise InputError(
            f"TF_CONFIG is {config}; its task must be one of its cluster, as in {form}."
        ) from error
