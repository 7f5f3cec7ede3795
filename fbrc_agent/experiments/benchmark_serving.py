"""Measurements of bin/benchmark --serving: the latency of exported policies."""

import functools
import tempfile
from collections.abc import Sequence
from typing import Any, Callable

import tensorflow as tf
from tf_agents.policies import tf_policy
from tf_agents.trajectories import time_step as ts
from tf_agents.utils import common

from fbrc_agent.experiments.benchmark_training import Contender, Sizes, make_policy, rate
from fbrc_agent.policies import export

BATCH_SIZES = (1, 32, 1024)

# A time step to actions.
_ActFn = Callable[[ts.TimeStep], Any]


def make_latency(sizes: Sizes, directory: str, wanted: Sequence[str]) -> dict[str, Contender]:
    """Returns the microseconds of a call by Python, of `make_calls` at each of `BATCH_SIZES`.

    The inputs are tensors that exist before; a session's call takes arrays of them first.
    """
    policy = make_policy(sizes)
    calls = make_calls(policy, directory)

    def contender(name: str) -> Contender:
        kind, size = name.rsplit("_", 1)
        shape = (int(size), *policy.time_step_spec.observation.shape)
        time_step = ts.restart(tf.random.stateless_normal(shape, (0, 0)), int(size))
        act = functools.partial(calls[kind], time_step)
        for _ in range(20):  # Warms up.
            act()
        return lambda: 1e6 / rate(act, sizes.seconds / len(BATCH_SIZES))

    return {name: contender(name) for name in wanted}


def make_calls(policy: tf_policy.TFPolicy, directory: str) -> dict[str, _ActFn]:
    """Returns six ways to act by one policy.

    `export` is the signature of our export, `saver` that of `PolicySaver`'s, called as Python's
    functions; `session_export` and `session_saver` are the same signatures in sessions that execute
    on the caller's thread, as in `examples/serving/act.c`. `eager` is the policy in Python and
    `function` the same in a `tf.function`.
    """
    writers = export.export_policy, export.export_tf_agents_policy
    exported, saved = (write(policy, tempfile.mkdtemp(dir=directory)) for write in writers)
    return {
        "export": _load(exported, "serving_default"),
        "saver": _load(saved, "action"),
        "session_export": _load_in_session(exported, "serving_default"),
        "session_saver": _load_in_session(saved, "action"),
        "eager": policy.action,
        "function": common.function(policy.action),
    }


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
