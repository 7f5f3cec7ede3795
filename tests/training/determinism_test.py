"""The same seed and threads give the same bits; other threads give the same numbers to rounding."""

import collections
import json
import os
import pathlib
import subprocess
import sys

import numpy as np
import pytest
from google.protobuf import text_format
from tensorflow.core.framework import graph_pb2, types_pb2

from tests.helpers import tiny_runs

# Products of 256 x 256 x 256 and more, which TensorFlow divides among the threads of an operation.
_PROGRAM = """
import hashlib, itertools, json
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
for batch, _ in fbrc.make_tf_dataset(data, 256, seed=0).take(300):
    train(batch)
bits = hashlib.sha256(b"".join(v.numpy().tobytes() for v in agent.variables)).hexdigest()
print(json.dumps({"losses": losses, "weights": weights, "bits": bits}))
"""


def start(intra_op, inter_op, dump_dir=None):
    variables = {"TF_NUM_INTRAOP_THREADS": str(intra_op), "TF_NUM_INTEROP_THREADS": str(inter_op)}
    if dump_dir is not None:  # TensorFlow then writes each graph as it is executed.
        variables["TF_DUMP_GRAPH_PREFIX"] = str(dump_dir)
        variables["TF_CPP_VMODULE"] = "optimize_function_graph_utils=4"
    environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3", **variables}
    return subprocess.Popen(
        [sys.executable, "-W", "ignore", "-c", _PROGRAM],
        cwd=tiny_runs.ROOT,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )


@pytest.fixture(scope="module")
def dump_dir(tmp_path_factory):
    return tmp_path_factory.mktemp("graphs")


@pytest.fixture(scope="module")
def outcomes(dump_dir):
    """What training gave with (intra-op, inter-op) threads of (1, 2), again, and of (2, 1)."""
    processes = [start(1, 2, dump_dir), start(1, 2), start(2, 1)]
    texts = [process.communicate()[0] for process in processes]
    return [json.loads(text.splitlines()[-1]) for text in texts]


def test_the_same_threads_give_the_same_bits(outcomes):
    assert outcomes[0] == outcomes[1]


def test_other_threads_give_the_same_to_rounding(outcomes):
    for name in ("losses", "weights"):
        np.testing.assert_allclose(outcomes[2][name], outcomes[0][name], rtol=1e-4, atol=1e-6)


def read_graph(path: pathlib.Path) -> dict:
    graph = graph_pb2.GraphDef()
    text_format.Parse(path.read_text(), graph)
    return {node.name: node for node in graph.node}


def ancestors(nodes, name):
    found, front = set(), [name]
    while front:
        node = front.pop()
        if node not in found:
            found.add(node)
            front += [i.lstrip("^").split(":")[0] for i in nodes[node].input]
    return found


def unordered_uses(nodes) -> list:
    """Returns (variable, writer, other node) wherever threads may run the two in any order."""
    users = collections.defaultdict(list)
    for node in nodes.values():
        for source in (i.split(":")[0] for i in node.input if not i.startswith("^")):
            if nodes[source].op == "_Arg" and nodes[source].attr["T"].type == types_pb2.DT_RESOURCE:
                users[source].append(node)
    found = []
    for variable, nodes_of_variable in users.items():
        for writer in (n for n in nodes_of_variable if n.op != "ReadVariableOp"):
            before = ancestors(nodes, writer.name)
            found += [
                (variable, writer.name, node.name)
                for node in nodes_of_variable
                if node.name not in before and writer.name not in ancestors(nodes, node.name)
            ]
    return found


@pytest.mark.usefixtures("outcomes")
def test_the_optimized_graph_orders_all_uses_of_each_variable(dump_dir):
    graphs = [read_graph(path) for path in dump_dir.glob("__inference_train_*.pbtxt")]
    assert graphs
    for nodes in graphs:
        operations = collections.Counter(node.op for node in nodes.values())
        assert operations["ResourceApplyAdam"] > 20 and operations["ReadVariableOp"] > 50
        assert unordered_uses(nodes) == []
