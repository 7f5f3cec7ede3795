"""Requests to TensorFlow Serving, read back by its protocol's own types."""

import json
import os

import numpy as np
import pytest
import tensorflow as tf
from tensorflow_serving.apis import predict_pb2, prediction_log_pb2

from fbrc_agent.policies import serving_requests
from tests.helpers import serving_server

NAMES = ["sample", "serving_default", "value"]


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    return serving_server.export_agent(
        serving_server.make_agent(), tmp_path_factory.mktemp("models")
    )


@pytest.fixture(scope="module")
def model(path):
    return tf.saved_model.load(path)


def assert_fits(request, signature, batch_size):
    """The request has the inputs of a signature, of its dtypes and shapes."""
    assert set(request.inputs) == set(signature.inputs)
    for name, tensor in request.inputs.items():
        info = signature.inputs[name]
        columns = [d.size for d in info.tensor_shape.dim[1:]]
        assert tensor.dtype == info.dtype
        assert [d.size for d in tensor.tensor_shape.dim] == [batch_size, *columns]


def test_signatures_are_read_from_the_file(path, model):
    assert list(serving_requests.signatures(path)) == NAMES == sorted(model.signatures)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("batch_size", [0, 3])
def test_grpc_request(path, name, batch_size):
    signature = serving_requests.signatures(path)[name]
    inputs = serving_requests.example_inputs(signature, batch_size)
    sent = serving_requests.predict_request("halfcheetah", name, inputs, version=4)
    request = predict_pb2.PredictRequest.FromString(sent.SerializeToString())
    assert (request.model_spec.name, request.model_spec.signature_name) == ("halfcheetah", name)
    assert request.model_spec.version.value == 4
    assert_fits(request, signature, batch_size)


def test_without_a_version_the_server_chooses():
    request = serving_requests.predict_request("halfcheetah", "serving_default", {})
    assert not request.model_spec.HasField("version")


def test_the_arrays_arrive_as_they_are():
    observation = np.float32([[1.5, np.nan, -np.inf], [1e-42, 3.0000002, 0.1]])
    inputs = {"observation": observation, "seed": np.array([2**62 + 1, -1])}
    request = serving_requests.predict_request("halfcheetah", "sample", inputs)
    for name, array in inputs.items():
        arrived = tf.make_ndarray(request.inputs[name])
        assert arrived.dtype == array.dtype
        np.testing.assert_array_equal(arrived, array)


@pytest.mark.parametrize("name", NAMES)
def test_rest_body_says_what_the_grpc_request_says(path, name):
    """Read by the rules of TensorFlow Serving's REST API: `inputs` in columns, NaN as a token."""
    signature = serving_requests.signatures(path)[name]
    inputs = serving_requests.example_inputs(signature, batch_size=2)
    inputs["observation"][0, :3] = [0.1, np.nan, np.inf]
    body = json.loads(serving_requests.rest_body(name, inputs))
    assert body.pop("signature_name", "serving_default") == name
    request = serving_requests.predict_request("halfcheetah", name, inputs)
    columns = body.pop("inputs")
    assert set(columns) == set(request.inputs) and not body
    for key, tensor in request.inputs.items():
        array = np.array(columns[key], tf.as_dtype(tensor.dtype).as_numpy_dtype)
        np.testing.assert_array_equal(array, tf.make_ndarray(tensor))


def test_warm_up_plays_each_signature_at_batches_of_1_and_32(path, model):
    file = os.path.join(path, "assets.extra", "tf_serving_warmup_requests")
    signatures, played = serving_requests.signatures(path), []
    for record in tf.data.TFRecordDataset(file).as_numpy_iterator():
        log = prediction_log_pb2.PredictionLog.FromString(record)
        assert log.WhichOneof("log_type") == "predict_log"
        request = log.predict_log.request
        assert request.model_spec.name == serving_server.MODEL
        name = request.model_spec.signature_name
        outputs = serving_server.replay(model, request)
        (batch_size,) = {len(output) for output in outputs.values()}
        assert_fits(request, signatures[name], batch_size)
        assert all(np.isfinite(output).all() for output in outputs.values())
        played.append((name, batch_size))
    assert played == [(name, batch_size) for name in NAMES for batch_size in (1, 32)]
