"""Measurements of bin/benchmark: updates, the Learner, evaluations, memory, loading, start."""

import dataclasses
import functools
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from typing import Any, Callable

import gin
import h5py
import numpy as np
import tensorflow as tf
from tf_agents.agents import tf_agent
from tf_agents.agents.cql import cql_sac_agent
from tf_agents.agents.sac import sac_agent
from tf_agents.policies import actor_policy, greedy_policy
from tf_agents.specs import tensor_spec
from tf_agents.train import learner
from tf_agents.train.utils import train_utils
from tf_agents.trajectories import time_step as ts
from tf_agents.typing import types

from fbrc_agent.agents import behavior, fbrc
from fbrc_agent.datasets import batches, hdf5, sources
from fbrc_agent.datasets.offline_data import OfflineData
from fbrc_agent.environments import gymnasium_environment
from fbrc_agent.evaluation import rollouts
from fbrc_agent.networks import actor_network, behavior_network, critic_network
from fbrc_agent.training import run_log

# A measurement: its number in one round.
Contender = Callable[[], float]

# CqlSacAgent as its authors' comparison with Fisher-BRC has it.
_CQL = {
    "cql_alpha": 5.0,
    "num_cql_samples": 10,
    "include_critic_entropy_term": False,
    "use_lagrange_cql_alpha": False,
}


@dataclasses.dataclass(frozen=True)
class Sizes:
    """The sizes that are measured; those of HalfCheetah by default."""

    rounds: int = 11
    observation_size: int = 17
    action_size: int = 6
    batch_size: int = 256
    rows: int = 1_000_000  # Of the synthetic data.
    gemm_size: int = 2048  # Rows and columns of the matrices whose product is the ceiling.
    seconds: float = 1.0  # Of each contender in a round, at least.
    updates_per_call: int = 100  # Of the Learner, or of a loop of its kind.
    environment: str = "HalfCheetah-v4"  # Of the evaluation.
    episodes: int = 10
    bindings: tuple[str, ...] = ()  # After gin/fbrc.gin.


def rate(function: Callable[[], Any], seconds: float) -> float:
    """Returns calls per second; it calls until the time is over, at least once."""
    started, calls = time.perf_counter(), 0
    while True:
        function()
        calls += 1
        passed = time.perf_counter() - started
        if passed >= seconds:
            return calls / passed


def contender(call: Callable[[], Any], seconds: float, count: float = 1.0) -> Contender:
    """Calls once, which traces; returns the measurement of a rate, `count` for each call."""
    call()
    return lambda: rate(call, seconds) * count


def product_flops(function: Callable[..., Any], *arguments: Any) -> int:
    """Returns the floating-point operations of the products of matrices in a call of a function.

    They are those of its graph and of the functions that this calls, 2 for each multiply-add.
    """

    def count(graph: Any) -> int:
        flops = 0
        for operation in graph.get_operations():
            if operation.type == "MatMul":
                rows, columns = operation.inputs[0].shape
                inner = rows if operation.get_attr("transpose_a") else columns
                flops += 2 * inner * operation.outputs[0].shape.num_elements()
            elif "PartitionedCall" in operation.type:
                called = graph._get_function(operation.get_attr("f").name)
                flops += count(called.graph)
        return flops

    concrete = tf.function(function, autograph=False).get_concrete_function(*arguments)
    return count(concrete.graph)


def make_updates(sizes: Sizes, _: str, wanted: Sequence[str]) -> dict[str, Contender]:
    """Returns agents' updates/s on one batch; "gemm" is F-BRC's at the FLOP/s of large products."""
    data = synthetic_data(sizes, rows=sizes.batch_size)
    batch = next(iter(batches.make_tf_dataset(data, sizes.batch_size, seed=0)))[0]
    count = sizes.updates_per_call
    # All are made before any is warmed up: setting the seed of one drops the others' kernels.
    agents = {name: make_agent(name, data) for name in wanted if name != "gemm"}
    contenders = {}
    for name, agent in agents.items():
        agent.initialize()
        call = functools.partial(updates_in_one_call(agent, count), batch)
        contenders[name] = contender(call, sizes.seconds, count)
    if "gemm" in wanted:
        # A product on each core at a time.
        factors = [tf.random.normal([sizes.gemm_size] * 2) for _ in os.sched_getaffinity(0)]
        products = tf.function(lambda: [tf.linalg.matmul(factor, factors[0]) for factor in factors])
        flops = product_flops(agents["fbrc"].train, batch)
        updates = len(factors) * 2 * sizes.gemm_size**3 / flops
        contenders["gemm"] = contender(products, sizes.seconds, updates)
    return contenders


def updates_in_one_call(agent: tf_agent.TFAgent, count: int) -> Callable[[Any], None]:
    """Returns a function that makes `count` updates on one batch, in TensorFlow's loop."""

    @tf.function(autograph=False)
    def run(batch: types.NestedTensor) -> None:
        def update(index: tf.Tensor) -> tuple[tf.Tensor]:
            agent.train(batch)
            return (index + 1,)

        tf.while_loop(lambda index: index < count, update, (tf.constant(0),))

    return run


def make_agent(name: str, data: OfflineData) -> tf_agent.TFAgent:
    """Returns an agent with gin's networks: behavior, F-BRC, SAC or CQL."""
    specs = data.time_step_spec, data.action_spec
    spaces = data.time_step_spec.observation, data.action_spec
    if name == "behavior":
        return behavior.behavior().create_agent(*specs, 0, {})
    if name == "fbrc":
        mu = behavior_network.MixtureBehaviorNetwork(*spaces)
        return fbrc.fbrc().create_agent(*specs, 0, {"behavior": mu})
    tf.keras.utils.set_random_seed(0)
    optimizers = {
        f"{part}_optimizer": tf.keras.optimizers.Adam(
            gin.query_parameter(f"{part}/Adam.learning_rate")
        )
        for part in ("actor", "critic", "alpha")
    }
    return (cql_sac_agent.CqlSacAgent if name == "cql" else sac_agent.SacAgent)(
        *specs,
        critic_network=critic_network.create_offset_network(spaces),
        actor_network=actor_network.create_actor_network(*spaces),
        gamma=gin.query_parameter("FbrcAgent.gamma"),
        target_update_tau=gin.query_parameter("FbrcAgent.target_update_tau"),
        train_step_counter=train_utils.create_train_step(),
        **optimizers,
        **(_CQL if name == "cql" else {}),
    )


def make_learner(sizes: Sizes, directory: str, _: Sequence[str]) -> dict[str, Contender]:
    """Returns updates/s of one Learner, fed by the data and by one batch."""
    data = synthetic_data(sizes, sizes.rows)
    agent = make_agent("fbrc", data)
    trainer = learner.Learner(
        *(os.path.join(directory, "learner"), agent.train_step_counter, agent),
        checkpoint_interval=0,
        strategy=tf.distribute.get_strategy(),
    )
    dataset = batches.make_tf_dataset(data, sizes.batch_size, seed=0)
    constant = tf.data.Dataset.from_tensors(next(iter(dataset))).repeat()
    contenders, count = {}, sizes.updates_per_call
    for name, source in {"data": dataset, "constant": constant}.items():
        call = functools.partial(trainer.run, iterations=count, iterator=iter(source))
        contenders[name] = contender(call, 2 * sizes.seconds, count)
    return contenders


def make_policy(sizes: Sizes) -> greedy_policy.GreedyPolicy:
    """Returns a greedy policy with gin's actor for the environment."""
    environment = gymnasium_environment.GymnasiumEnvironment(sizes.environment)
    observation_spec = tensor_spec.from_spec(environment.observation_spec())
    action_spec = tensor_spec.from_spec(environment.action_spec())
    network = actor_network.create_actor_network(observation_spec, action_spec)
    network.create_variables()
    specs = ts.time_step_spec(observation_spec), action_spec
    return greedy_policy.GreedyPolicy(actor_policy.ActorPolicy(*specs, actor_network=network))


def make_evaluation(sizes: Sizes, *_: Any) -> dict[str, Contender]:
    """Returns episodes/s side by side and one after another."""
    action_fn = rollouts.policy_action_fn(make_policy(sizes))

    def episodes(at_a_time: int) -> None:
        for seed in range(0, sizes.episodes, at_a_time):
            rollouts.evaluate(action_fn, sizes.environment, at_a_time, seed)

    return {
        name: contender(functools.partial(episodes, at_a_time), 0.0, sizes.episodes)
        for name, at_a_time in (("together", sizes.episodes), ("single", 1))
    }


def synthetic_columns(sizes: Sizes, rows: int) -> dict[str, np.ndarray]:
    """Returns the columns of a D4RL-layout file: noise, in episodes that a time limit cuts."""
    generator = np.random.default_rng(0)
    return {
        "observations": generator.standard_normal((rows, sizes.observation_size), np.float32),
        "actions": generator.random((rows, sizes.action_size), np.float32) * 1.98 - 0.99,
        "rewards": generator.standard_normal(rows, np.float32),
        "terminals": np.zeros(rows, bool),
        "timeouts": np.arange(1, rows + 1) % 1000 == 0,
    }


def synthetic_data(sizes: Sizes, rows: int) -> OfflineData:
    """Returns transitions of noise."""
    observations, actions, rewards, *_ = synthetic_columns(sizes, rows).values()
    others = np.roll(observations, -1, axis=0), np.ones(rows, np.float32)
    return OfflineData.from_arrays(observations, actions, rewards, *others)


def make_loading(sizes: Sizes, directory: str, _: Sequence[str]) -> dict[str, Contender]:
    """Returns the seconds of loading a file with and without this package, from the page cache."""
    path = _data_file(sizes, directory, sizes.rows)

    def read() -> list[np.ndarray]:
        with h5py.File(path, "r") as file:
            return [file[key][()] for key in file]

    load = functools.partial(sources.load_dataset, path)
    return {"load": lambda: 1 / rate(load, 0.0), "h5py": lambda: 1 / rate(read, 0.0)}


def make_memory(sizes: Sizes, directory: str, _: Sequence[str]) -> dict[str, Contender]:
    """Returns the peak memory of a process with much data above one with little, per byte."""
    code = f"from {__name__} import *; import sys; print(*memory_of(sys.argv[1], int(sys.argv[2])))"

    def memory(rows: int) -> np.ndarray:
        path = _data_file(sizes, directory, rows)
        command = [sys.executable, "-c", code, path, str(sizes.batch_size)]
        return np.array(subprocess.check_output(command).split()[-2:], np.float64)

    return {"memory": lambda: float(np.divide(*(memory(sizes.rows) - memory(2000))))}


def memory_of(path: str, batch_size: int) -> tuple[int, int]:
    """Loads a file, draws batches; returns this process's peak memory and its data's bytes."""
    data = sources.load_dataset(path)
    for _ in batches.make_tf_dataset(data, batch_size, seed=0).take(10):
        pass
    names = ("observations", "actions", "rewards", "next_observations", "discounts")
    return peak_bytes(), sum(getattr(data, name).nbytes for name in names)


def peak_bytes() -> int:
    """Returns the peak of the resident memory since exec; `ru_maxrss` may count the parent's."""
    with open("/proc/self/status", encoding="ascii") as file:
        return next(int(line.split()[1]) * 1024 for line in file if line.startswith("VmHWM:"))


def _data_file(sizes: Sizes, directory: str, rows: int) -> str:
    path = os.path.join(directory, f"{rows}.hdf5")
    if not os.path.exists(path):
        hdf5.save_d4rl_hdf5(path, **synthetic_columns(sizes, rows), attributes={})
    return path


def make_startup(_: Sizes, directory: str, __: Sequence[str]) -> dict[str, Contender]:
    """Returns the seconds from the start of a run to its first update, the caches warm.

    The first line of metrics.jsonl shows the update, so the tracing for that line is included.
    """

    def start() -> float:
        root_dir = tempfile.mkdtemp(dir=directory)
        command = [sys.executable, "-m", "fbrc_agent.cli", "train", "--root_dir", root_dir]
        command += ["--gin_file", "quickstart.gin", "--gin_bindings", "train.log_interval = 1"]
        started = time.perf_counter()
        with subprocess.Popen(command, stdout=subprocess.DEVNULL) as process:
            while not run_log.read_metrics(root_dir):
                if process.poll() is not None:
                    raise RuntimeError("The run ended before its first update; see above.")
                time.sleep(0.02)
            process.kill()
        return time.perf_counter() - started

    start()
    return {"startup": start}
