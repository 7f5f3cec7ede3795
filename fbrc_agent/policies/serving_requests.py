"""Requests to TensorFlow Serving for an exported policy, made from its signatures."""

import json
import os
from collections.abc import Mapping
from typing import Any, Optional

import numpy as np
import tensorflow as tf
from tensorflow.core.protobuf import meta_graph_pb2, saved_model_pb2
from tensorflow_serving.apis import predict_pb2, prediction_log_pb2

# Where TensorFlow Serving looks for the requests that it plays to a model before it serves it.
WARMUP = os.path.join("assets.extra", "tf_serving_warmup_requests")
_WARMUP_BATCH_SIZES = (1, 32)


def signatures(directory: str) -> dict[str, meta_graph_pb2.SignatureDef]:
    """Returns the signatures of a SavedModel by name, read from its file; nothing is executed."""
    model = saved_model_pb2.SavedModel()
    with open(os.path.join(directory, "saved_model.pb"), "rb") as file:
        model.ParseFromString(file.read())
    found = model.meta_graphs[0].signature_def
    return {name: found[name] for name in sorted(found) if not name.startswith("__")}


def example_inputs(
    signature: meta_graph_pb2.SignatureDef, batch_size: int = 1
) -> dict[str, np.ndarray]:
    """Returns zeros of the dtypes and shapes that a signature takes, by name of the input."""
    return {
        name: np.zeros(
            [batch_size if d.size < 0 else d.size for d in info.tensor_shape.dim],
            tf.as_dtype(info.dtype).as_numpy_dtype,
        )
        for name, info in sorted(signature.inputs.items())
    }


def predict_request(
    model_name: str,
    signature_name: str,
    inputs: Mapping[str, np.ndarray],
    version: Optional[int] = None,
) -> predict_pb2.PredictRequest:
    """Returns the gRPC request for `PredictionService.Predict`.

    Args:
      model_name: The name under which the model is served.
      signature_name: One of its signatures.
      inputs: Arrays by name of the input.
      version: The version to be asked; by default the server's choice, the newest.
    """
    request = predict_pb2.PredictRequest()
    request.model_spec.name = model_name
    request.model_spec.signature_name = signature_name
    if version is not None:
        request.model_spec.version.value = version
    for name, value in inputs.items():
        request.inputs[name].CopyFrom(tf.make_tensor_proto(value))
    return request


def rest_body(signature_name: str, inputs: Mapping[str, np.ndarray]) -> str:
    """Returns the body of the REST request, POST /v1/models/NAME:predict, in columns."""
    content: dict[str, Any] = {"inputs": {name: value.tolist() for name, value in inputs.items()}}
    if signature_name != "serving_default":
        content["signature_name"] = signature_name
    return json.dumps(content)


def write_warmup(directory: str, model_name: str) -> None:
    """Writes the warm-up requests of a SavedModel: each signature, batches of 1 and 32."""
    path = os.path.join(directory, WARMUP)
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with tf.io.TFRecordWriter(path) as writer:
        for name, signature in signatures(directory).items():
            for batch_size in _WARMUP_BATCH_SIZES:
                request = predict_request(model_name, name, example_inputs(signature, batch_size))
                log = prediction_log_pb2.PredictLog(request=request)
                record = prediction_log_pb2.PredictionLog(predict_log=log)
                writer.write(record.SerializeToString())
