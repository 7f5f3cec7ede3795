"""What tests of serving share: an exported agent, and a server in TensorFlow Serving's place."""

import concurrent.futures
import contextlib

import grpc
import numpy as np
import tensorflow as tf
from tensorflow_serving.apis import (
    get_model_metadata_pb2,
    predict_pb2,
    prediction_service_pb2_grpc,
)
from tf_agents.specs import tensor_spec
from tf_agents.trajectories import time_step as ts

from fbrc_agent.agents import fbrc as fbrc_agent
from fbrc_agent.networks import actor_network, behavior_network, critic_network
from fbrc_agent.policies import export, serving_requests

# HalfCheetah's sizes, in a box whose middle is not 0.
OBSERVATION_SIZE = 17
LOW = np.array([-0.9, -0.5, 0.0, -1.0, -0.2, -0.3])
HIGH = np.array([0.5, 0.25, 1.2, -0.1, 0.2, 0.9])
ACTION_SIZE = len(LOW)
MODEL = "halfcheetah"


def make_agent():
    """Returns an agent with random weights, large enough that actions fill the box."""
    time_step_spec = ts.time_step_spec(tf.TensorSpec([OBSERVATION_SIZE], tf.float32))
    action_spec = tensor_spec.BoundedTensorSpec([ACTION_SIZE], tf.float32, LOW, HIGH, "action")
    specs = time_step_spec.observation, action_spec
    layers = {"fc_layer_params": (32, 32, 32)}
    agent = fbrc_agent.FbrcAgent(
        time_step_spec,
        action_spec,
        critic_network=critic_network.create_offset_network(specs, **layers),
        actor_network=actor_network.create_actor_network(*specs, **layers),
        behavior_network=behavior_network.MixtureBehaviorNetwork(*specs, **layers),
        **{
            f"{name}_optimizer": tf.keras.optimizers.Adam() for name in ("actor", "critic", "alpha")
        },
        train_step_counter=tf.Variable(0, dtype=tf.int64),
    )
    generator = np.random.default_rng(0)
    for variable in agent.policy.variables():
        scale = 1.4 / np.sqrt(variable.shape[0])
        variable.assign(generator.normal(size=variable.shape, scale=scale))
    return agent


def export_agent(agent, directory):
    """Exports an agent with its value; returns the path of version 1 of `MODEL`."""
    return export.export_policy(agent.policy, str(directory / MODEL), value_fn=agent.values)


class _PredictionService(prediction_service_pb2_grpc.PredictionServiceServicer):
    """Answers as TensorFlow Serving does, from the same file and by the same protocol types.

    It replaces that server, a program that is not installed here. A test against it shows that
    clients and models agree on the protocol, and nothing about the server.
    """

    def __init__(self, path):
        self._signatures = serving_requests.signatures(path)
        self._model = tf.saved_model.load(path)

    def _check_name(self, request, context):
        if request.model_spec.name != MODEL:
            name = request.model_spec.name
            context.abort(grpc.StatusCode.NOT_FOUND, f"Servable not found for request: {name}")

    def GetModelMetadata(self, request, context):  # noqa: N802
        self._check_name(request, context)
        assert list(request.metadata_field) == ["signature_def"]
        found = get_model_metadata_pb2.SignatureDefMap(signature_def=self._signatures)
        response = get_model_metadata_pb2.GetModelMetadataResponse(model_spec=request.model_spec)
        response.metadata["signature_def"].Pack(found)
        return response

    def Predict(self, request, context):  # noqa: N802
        self._check_name(request, context)
        response = predict_pb2.PredictResponse(model_spec=request.model_spec)
        for name, value in replay(self._model, request).items():
            response.outputs[name].CopyFrom(tf.make_tensor_proto(value))
        return response


def replay(model, request):
    """Returns what a loaded SavedModel answers to a `PredictRequest`, arrays by name."""
    signature = model.signatures[request.model_spec.signature_name or "serving_default"]
    inputs = {name: tf.constant(tf.make_ndarray(t)) for name, t in request.inputs.items()}
    return {name: output.numpy() for name, output in signature(**inputs).items()}


@contextlib.contextmanager
def serve(path):
    """Serves a SavedModel as `MODEL` over gRPC; yields the address, on this machine alone."""
    server = grpc.server(concurrent.futures.ThreadPoolExecutor(max_workers=1))
    service = _PredictionService(path)
    prediction_service_pb2_grpc.add_PredictionServiceServicer_to_server(service, server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        yield f"127.0.0.1:{port}"
    finally:
        server.stop(grace=None).wait()
