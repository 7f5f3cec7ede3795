"""Measurements of bin/benchmark --serving: latency and bytes of exported policies."""

import functools
import os
import tempfile
from collections.abc import Sequence
from typing import Any, Callable

import numpy as np
import tensorflow as tf
from tf_agents.policies import greedy_policy, tf_policy
from tf_agents.trajectories import time_step as ts
from tf_agents.typing import types
from tf_agents.utils import common

from fbrc_agent.experiments.benchmark_training import (
    Contender,
    Sizes,
    make_policy,
    rate,
    synthetic_data,
)
from fbrc_agent.policies import export

BATCH_SIZES = (1, 32, 1024)
_WARM_UP_CALLS = 20

# A time step to actions.
_ActFn = Callable[[ts.TimeStep], Any]


def make_latency(sizes: Sizes, directory: str, wanted: Sequence[str]) -> dict[str, Contender]:
    """Returns the microseconds of a call by Python, of `make_calls` at each of `BATCH_SIZES`.

    The inputs are tensors that exist before; a session's call takes arrays of them first.
    """
    calls = make_calls(make_policy(*specs(sizes)), directory)

    def contender(name: str) -> Contender:
        kind, size = name.rsplit("_", 1)
        act = functools.partial(calls[kind], make_time_step(sizes, int(size)))
        for _ in range(_WARM_UP_CALLS):
            act()
        return lambda: 1e6 / rate(act, sizes.seconds / len(BATCH_SIZES))

    return {name: contender(name) for name in wanted}


def make_calls(policy: tf_policy.TFPolicy, directory: str) -> dict[str, _ActFn]:
    """Returns six ways to act greedily by one policy.

    `export` is the signature of our export, `saver` that of `PolicySaver`'s, called as Python's
    functions; `session_export` and `session_saver` are the same signatures in sessions that execute
    on the caller's thread, as in `examples/serving/act.c`. `eager` is the policy in Python and
    `function` the same in a `tf.function`.
    """
    greedy = greedy_policy.GreedyPolicy(policy)
    exported, saved = _write_both(policy, directory)
    return {
        "export": _load(exported, "serving_default"),
        "saver": _load(saved, "action"),
        "session_export": _load_in_session(exported, "serving_default"),
        "session_saver": _load_in_session(saved, "action"),
        "eager": greedy.action,
        "function": common.function(greedy.action),
    }


def make_sizes(sizes: Sizes, directory: str) -> dict[str, Contender]:
    """Returns the bytes of SavedModels and of the actor's weights."""
    policy = make_policy(*specs(sizes))
    exported, saved = map(model_bytes, _write_both(policy, directory))
    weights = sum(variable.numpy().nbytes for variable in policy.variables())
    return {"export": lambda: exported, "saver": lambda: saved, "weights": lambda: weights}


def model_bytes(path: str) -> int:
    """Returns the bytes of saved_model.pb and variables/, what a program needs to act."""
    variables = os.path.join(path, "variables")
    files = [os.path.join(variables, name) for name in os.listdir(variables)]
    return sum(map(os.path.getsize, [os.path.join(path, "saved_model.pb"), *files]))


def specs(sizes: Sizes) -> tuple[tf.TensorSpec, types.BoundedTensorSpec]:
    """Returns the specs of observations and actions."""
    data = synthetic_data(sizes, rows=2)
    return data.time_step_spec.observation, data.action_spec


def make_time_step(sizes: Sizes, batch_size: int) -> ts.TimeStep:
    """Returns first time steps of normal observations."""
    shape = (batch_size, sizes.observation_size)
    observation = np.random.default_rng(0).standard_normal(shape, np.float32)
    return ts.restart(tf.constant(observation), batch_size)


def _write_both(policy: tf_policy.TFPolicy, directory: str) -> tuple[str, str]:
    """Writes our export and `PolicySaver`'s; returns their paths."""
    writers = export.export_policy, export.export_tf_agents_policy
    ours, saver = (write(policy, tempfile.mkdtemp(dir=directory)) for write in writers)
    return ours, saver


def _load(path: str, name: str) -> _ActFn:
    model = tf.saved_model.load(path)
    act = model.signatures[name]
    act.model = model  # Keeps it alive.
    fields = {argument: _field(argument) for argument in act.structured_input_signature[1]}
    return lambda time_step: act(**{key: getattr(time_step, f) for key, f in fields.items()})


def _load_in_session(path: str, name: str) -> _ActFn:
    with tf.Graph().as_default():
        session = tf.compat.v1.Session(
            config=tf.compat.v1.ConfigProto(inter_op_parallelism_threads=-1)
        )
        model = tf.compat.v1.saved_model.load(session, ["serve"], path)
        signature = model.signature_def[name]
        (action,) = signature.outputs.values()
        fields = [_field(argument) for argument in signature.inputs]
        act = session.make_callable(action.name, [i.name for i in signature.inputs.values()])
    return lambda time_step: act(*(getattr(time_step, field).numpy() for field in fields))


def _field(argument: str) -> str:
    """Returns the field of a `TimeStep` that an input is, such as '0/reward'."""
    return next(field for field in ts.TimeStep._fields if argument.endswith(field))
