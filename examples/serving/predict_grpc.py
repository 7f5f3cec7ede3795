"""Asks TensorFlow Serving for actions over gRPC; knows nothing but TensorFlow and its protocol.

    python predict_grpc.py --address localhost:8500 --model halfcheetah \
        --inputs observation=observations.npy --output actions.npz

What the signature takes and gives is asked of the server first, so that a wrong file is refused in
a sentence. `--signature sample --inputs observation=observations.npy seed=seeds.npy` draws actions.
"""

import argparse
import sys

import grpc
import numpy as np
import tensorflow as tf
from tensorflow_serving.apis import (
    get_model_metadata_pb2,
    predict_pb2,
    prediction_service_pb2_grpc,
)

_TIMEOUT_SECONDS = 10.0


def get_signature(stub, model, signature):
    """Returns the SignatureDef of a served model, e.g. of its `serving_default`."""
    request = get_model_metadata_pb2.GetModelMetadataRequest()
    request.model_spec.name = model
    request.metadata_field.append("signature_def")
    response = stub.GetModelMetadata(request, timeout=_TIMEOUT_SECONDS)
    signatures = get_model_metadata_pb2.SignatureDefMap()
    response.metadata["signature_def"].Unpack(signatures)
    if signature not in signatures.signature_def:
        raise ValueError(f"{model} has no signature {signature}.")
    return signatures.signature_def[signature]


def check_inputs(signature, inputs):
    """Raises ValueError unless the arrays have the names, dtypes and shapes of the signature."""
    if set(inputs) != set(signature.inputs):
        raise ValueError(f"The inputs are {sorted(inputs)}; needed: {sorted(signature.inputs)}.")
    for name, info in signature.inputs.items():
        dtype, shape = tf.as_dtype(info.dtype), tf.TensorShape(info.tensor_shape)
        array = inputs[name]
        if array.dtype != dtype.as_numpy_dtype or not shape.is_compatible_with(array.shape):
            raise ValueError(
                f"{name} is {array.dtype} {list(array.shape)}; needed: {dtype.name} {shape}."
            )


def predict(stub, model, signature, inputs):
    """Returns the outputs of a signature for a batch of inputs, arrays by name."""
    request = predict_pb2.PredictRequest()
    request.model_spec.name = model
    request.model_spec.signature_name = signature
    for name, array in inputs.items():
        request.inputs[name].CopyFrom(tf.make_tensor_proto(array))
    response = stub.Predict(request, timeout=_TIMEOUT_SECONDS)
    return {name: tf.make_ndarray(tensor) for name, tensor in response.outputs.items()}


def main():
    """Reads the inputs, asks the server and writes its outputs."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--address", default="localhost:8500", help="host:port")
    parser.add_argument("--model", required=True, help="the name that the model is served under")
    parser.add_argument("--signature", default="serving_default")
    parser.add_argument("--inputs", nargs="+", required=True, metavar="NAME=FILE.npy")
    parser.add_argument("--output", required=True, metavar="FILE.npz")
    flags = parser.parse_args()
    try:
        inputs = {name: np.load(file) for name, file in (i.split("=", 1) for i in flags.inputs)}
        with grpc.insecure_channel(flags.address) as channel:
            stub = prediction_service_pb2_grpc.PredictionServiceStub(channel)
            check_inputs(get_signature(stub, flags.model, flags.signature), inputs)
            outputs = predict(stub, flags.model, flags.signature, inputs)
    except grpc.RpcError as error:
        sys.exit(f"{flags.address}: {error.code().name}: {error.details()}")
    except (OSError, ValueError) as error:
        sys.exit(str(error))
    np.savez(flags.output, **outputs)


if __name__ == "__main__":
    main()
