"""What the benchmark measures of exported policies: latency, cold loads, bytes."""

import functools
import os
import tempfile
import time
from typing import Any, Callable

import numpy as np
import tensorflow as tf
from tf_agents.policies import actor_policy, greedy_policy, tf_policy
from tf_agents.trajectories import time_step as ts
from tf_agents.utils import common

from fbrc_agent.experiments import benchmark_io, benchmark_updates
from fbrc_agent.networks import actor_network
from fbrc_agent.policies import export

BATCH_SIZES = (1, 32, 1024)
_WARM_UP_CALLS = 20

# A time step to actions.
_ActFn = Callable[[ts.TimeStep], Any]


def make_latency(sizes: benchmark_io.Sizes, directory: str) -> dict[str, benchmark_io.Contender]:
    """Returns contenders that take the seconds of a call by Python, for each of `BATCH_SIZES`.

    They are those of `make_calls`. The inputs are tensors that are there before; a session's call
    takes arrays of them first.
    """
    calls = make_calls(make_policy(sizes), directory)
    time_steps = {batch_size: make_time_step(sizes, batch_size) for batch_size in BATCH_SIZES}

    def contender(name: str, act: _ActFn) -> benchmark_io.Contender:
        for time_step in time_steps.values():
            for _ in range(_WARM_UP_CALLS):
                act(time_step)
        seconds = sizes.seconds / len(BATCH_SIZES)
        return lambda: {
            f"{name}_{size}_seconds": 1
            / benchmark_updates.rate(functools.partial(act, time_step), seconds)
            for size, time_step in time_steps.items()
        }

    return {name: contender(name, act) for name, act in calls.items()}


def make_calls(policy: tf_policy.TFPolicy, directory: str) -> dict[str, _ActFn]:
    """Returns six ways to act greedily by one policy.

    `export` is the signature of our export, `saver` that of `PolicySaver`'s, called as Python's
    functions; `session_export` and `session_saver` are the same signatures in sessions that execute
    on the caller's thread, as in `examples/serving/act.c`. `eager` is the policy in Python and
    `function` the same in a `tf.function`.
    """
    greedy = greedy_policy.GreedyPolicy(policy)
    exported, saved = _write_export(policy, directory), _write_saver(policy, directory)
    return {
        "export": _load_export(exported),
        "saver": _load_saver(saved),
        "session_export": _load_in_session(exported, "serving_default"),
        "session_saver": _load_in_session(saved, "action"),
        "eager": greedy.action,
        "function": common.function(greedy.action),
    }


def make_loads(sizes: benchmark_io.Sizes, directory: str) -> dict[str, benchmark_io.Contender]:
    """Returns contenders that take the seconds from a file to the first action, batch 1.

    In this process, with TensorFlow imported. `python` makes the network and reads a checkpoint.
    """
    policy = make_policy(sizes)
    exported, saved = _write_export(policy, directory), _write_saver(policy, directory)
    prefix = os.path.join(tempfile.mkdtemp(dir=directory), "policy")
    checkpoint = tf.train.Checkpoint(policy=policy).write(prefix)
    time_step = make_time_step(sizes, 1)

    def python() -> _ActFn:
        restored = make_policy(sizes)
        tf.train.Checkpoint(policy=restored).read(checkpoint).assert_existing_objects_matched()
        return greedy_policy.GreedyPolicy(restored).action

    def contender(name: str, load: Callable[[], _ActFn]) -> benchmark_io.Contender:
        def measure() -> dict[str, float]:
            started = time.perf_counter()
            load()(time_step)
            return {f"{name}_load_seconds": time.perf_counter() - started}

        measure()  # The first one loads what TensorFlow loads when it is needed.
        return measure

    return {
        "export": contender("export", lambda: _load_export(exported)),
        "saver": contender("saver", lambda: _load_saver(saved)),
        "python": contender("python", python),
    }


def make_sizes(sizes: benchmark_io.Sizes, directory: str) -> dict[str, benchmark_io.Contender]:
    """Returns a contender that takes the bytes of SavedModels and of the actor's weights.

    Those of saved_model.pb and variables/: what a program needs to act.
    """
    policy = make_policy(sizes)
    numbers = {
        "export_bytes": model_bytes(_write_export(policy, directory)),
        "saver_bytes": model_bytes(_write_saver(policy, directory)),
        "weight_bytes": sum(v.numpy().nbytes for v in policy.variables()),
    }
    return {"bytes": lambda: {name: float(value) for name, value in numbers.items()}}


def model_bytes(path: str) -> int:
    """Returns the bytes of a SavedModel's saved_model.pb and variables/."""
    variables = os.path.join(path, "variables")
    files = [os.path.join(variables, name) for name in os.listdir(variables)]
    return sum(map(os.path.getsize, [os.path.join(path, "saved_model.pb"), *files]))


def make_policy(sizes: benchmark_io.Sizes) -> tf_policy.TFPolicy:
    """Returns a policy with gin's actor, in HalfCheetah's box."""
    data = benchmark_io.synthetic_data(sizes, rows=2)
    network = actor_network.create_actor_network(data.time_step_spec.observation, data.action_spec)
    network.create_variables()
    return actor_policy.ActorPolicy(data.time_step_spec, data.action_spec, actor_network=network)


def make_time_step(sizes: benchmark_io.Sizes, batch_size: int) -> ts.TimeStep:
    """Returns first time steps of normal observations."""
    shape = (batch_size, sizes.observation_size)
    observation = np.random.default_rng(0).standard_normal(shape, np.float32)
    return ts.restart(tf.constant(observation), batch_size)


def _write_export(policy: tf_policy.TFPolicy, directory: str) -> str:
    return export.export_policy(policy, tempfile.mkdtemp(prefix="export_", dir=directory))


def _write_saver(policy: tf_policy.TFPolicy, directory: str) -> str:
    return export.export_tf_agents_policy(policy, tempfile.mkdtemp(prefix="saver_", dir=directory))


def _load_export(path: str) -> _ActFn:
    act = _load_signature(path, "serving_default")
    return lambda time_step: act(observation=time_step.observation)


def _load_saver(path: str) -> _ActFn:
    act = _load_signature(path, "action")
    # TensorFlow makes "arg_0_reward" of TF-Agents' "0/reward".
    fields = {
        name: next(field for field in ts.TimeStep._fields if name.endswith(field))
        for name in act.structured_input_signature[1]
    }
    return lambda time_step: act(
        **{name: getattr(time_step, field) for name, field in fields.items()}
    )


def _load_in_session(path: str, name: str) -> _ActFn:
    with tf.Graph().as_default():
        session = tf.compat.v1.Session(
            config=tf.compat.v1.ConfigProto(inter_op_parallelism_threads=-1)
        )
        model = tf.compat.v1.saved_model.load(session, ["serve"], path)
        signature = model.signature_def[name]
        (action,) = signature.outputs.values()
        fields = [tensor.split("/")[-1] for tensor in signature.inputs]  # "0/reward" is TF-Agents'.
        act = session.make_callable(action.name, [i.name for i in signature.inputs.values()])
    return lambda time_step: act(*(getattr(time_step, field).numpy() for field in fields))


def _load_signature(path: str, name: str) -> Any:
    model = tf.saved_model.load(path)
    signature = model.signatures[name]
    signature.model = model  # Which does not live on otherwise.
    return signature
