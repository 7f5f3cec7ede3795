"""The same seed and threads give the same bits; other threads give the same numbers to rounding."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest

from tests import tiny

# Products of 256 x 256 x 256 and more, which TensorFlow divides among the threads of an operation.
_PROGRAM = """
import json
import numpy as np
import tensorflow as tf
import fbrc_agent as fbrc

generator = np.random.default_rng(0)
size = 1024
data = fbrc.OfflineData.from_arrays(
    observations=generator.normal(size=(size, 17)),
    actions=generator.uniform(-0.9, 0.9, (size, 6)),
    rewards=generator.normal(size=size),
    next_observations=generator.normal(size=(size, 17)),
    discounts=np.ones(size),
)
tf.keras.utils.set_random_seed(0)
specs = data.time_step_spec.observation, data.action_spec
adam = [tf.keras.optimizers.Adam(3e-4, epsilon=1e-2) for _ in range(3)]
agent = fbrc.FbrcAgent(
    data.time_step_spec, data.action_spec, fbrc.create_offset_network(specs),
    fbrc.create_actor_network(*specs), *adam, behavior_network=fbrc.MixtureBehaviorNetwork(*specs),
    train_step_counter=tf.Variable(0, dtype=tf.int64), target_update_tau=0.005, gamma=0.99, seed=0,
)
agent.initialize()
train = tf.function(agent.train)
batches = fbrc.make_tf_dataset(data, 1024, seed=0).take(5)
losses = [[float(x) for x in train(batch).extra] for batch, _ in batches]
weights = [float(tf.reduce_sum(tf.abs(v))) for v in agent.variables if v.dtype.is_floating]
print(json.dumps({"losses": losses, "weights": weights}))
"""


def start(intra_op, inter_op):
    threads = {"TF_NUM_INTRAOP_THREADS": str(intra_op), "TF_NUM_INTEROP_THREADS": str(inter_op)}
    environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3", **threads}
    return subprocess.Popen(
        [sys.executable, "-W", "ignore", "-c", _PROGRAM],
        cwd=tiny.ROOT,
        env=environment,
        stdout=subprocess.PIPE,
        text=True,
    )


@pytest.fixture(scope="module")
def outcomes():
    """What training gave with (intra-op, inter-op) threads of (1, 2), again, and of (2, 1)."""
    processes = [start(1, 2), start(1, 2), start(2, 1)]
    texts = [process.communicate()[0] for process in processes]
    return [json.loads(text.splitlines()[-1]) for text in texts]


def test_the_same_threads_give_the_same_bits(outcomes):
    assert outcomes[0] == outcomes[1]


def test_other_threads_give_the_same_to_rounding(outcomes):
    for name in ("losses", "weights"):
        np.testing.assert_allclose(outcomes[2][name], outcomes[0][name], rtol=1e-4, atol=1e-6)
