"""The model card beside an exported policy: policy.json for programs, README.md for people.

Both only describe. Nothing that serves or evaluates a policy follows what is in them to another
file: the model is the SavedModel alone.
"""

import json
import os
from collections.abc import Mapping, Sequence
from typing import Any, Optional

import numpy as np
import tensorflow as tf
from tf_agents.policies import tf_policy
from tf_agents.specs import tensor_spec

from fbrc_agent.policies import serving_requests
from fbrc_agent.utils import atomic_files, json_files, provenance, tables

_CARD = "policy.json"
_NORMALIZATION_SENTENCES = (
    "Observations enter the network as they are: no normalization, no clipping.",
    "The model takes raw observations and normalizes them itself.",
)


def write(directory: str, name: str, policy: tf_policy.TFPolicy, origin: Mapping[str, Any]) -> None:
    """Writes policy.json and README.md beside a SavedModel.

    policy.json holds `name`; `observation` and `action`, each with name, dtype, shape without the
    batch, and bounds (those of observations are the data's, nothing clips to them);
    `normalization`, None where observations enter the network as they are, else the mean and the
    scale that the model itself subtracts and divides by; `signatures`, the names and shapes of
    inputs and outputs; `versions` and `git_revision` of what exported it; and the entries of
    `origin`: for a policy of a run `algorithm` (what people call it), `task` (None for none), its
    `reference_scores`, `seed`, `data` (source, SHA-256, counts, returns), `steps` of each stage by
    its name; `warning`, why this policy cannot be trusted, or None; and `scores`, each episode's
    return and length, or None if the policy at this step was not evaluated.

    Args:
      directory: The SavedModel.
      name: The model's name.
      policy: What was exported.
      origin: Entries that say where it comes from.
    """
    data = origin.get("data", {})
    data_range = data.get("observation_minimum"), data.get("observation_maximum")
    signatures = serving_requests.signatures(directory)
    card = {
        "name": name,
        **origin,
        "observation": _describe("observation", policy.time_step_spec.observation, data_range),
        "action": _describe("action", policy.action_spec, _bounds(policy.action_spec)),
        "normalization": data.get("normalization"),
        "signatures": _describe_signatures(signatures),
        "versions": provenance.versions(),
        "git_revision": provenance.git_revision(),
    }
    json_files.write_json(os.path.join(directory, _CARD), card)
    atomic_files.write_text(os.path.join(directory, "README.md"), _page(card, signatures))


def read_task(directory: str) -> tuple[Optional[str], Optional[Sequence[float]]]:
    """Returns task and reference scores that a policy's card names; None for what is not."""
    card = json_files.read_json(os.path.join(directory, _CARD))
    entries = card if isinstance(card, dict) else {}
    return entries.get("task"), entries.get("reference_scores")


def _describe(name: str, spec: tf.TensorSpec, limits: Sequence[Any]) -> dict[str, Any]:
    shape = {"name": name, "dtype": spec.dtype.name, "shape": spec.shape.as_list()}
    return {**shape, "minimum": limits[0], "maximum": limits[1]}


def _bounds(spec: tf.TensorSpec) -> Sequence[Optional[list[float]]]:
    if not isinstance(spec, tensor_spec.BoundedTensorSpec):
        return None, None
    bounds = (spec.minimum, spec.maximum)
    return [np.broadcast_to(bound, spec.shape).astype(float).tolist() for bound in bounds]


def _describe_signatures(signatures: Mapping[str, Any]) -> dict[str, Any]:
    def tensors(infos: Mapping[str, Any]) -> dict[str, Any]:
        return {
            name: {
                "dtype": tf.as_dtype(info.dtype).name,
                "shape": tf.TensorShape(info.tensor_shape).as_list(),
            }
            for name, info in sorted(infos.items())
        }

    return {
        name: {"inputs": tensors(signature.inputs), "outputs": tensors(signature.outputs)}
        for name, signature in signatures.items()
    }


def _page(card: Mapping[str, Any], signatures: Mapping[str, Any]) -> str:
    origin = "".join(f"{line}\n" for line in _origin_lines(card))
    versions = ", ".join(f"{name} {version}" for name, version in card["versions"].items())
    return f"""# {card["name"]}

{origin}
{_signature_table(card["signatures"])}

{_NORMALIZATION_SENTENCES[card["normalization"] is not None]}
A row with a NaN or an infinity gives a row of NaN. Actions are between
{card["action"]["minimum"]} and {card["action"]["maximum"]}.{_range_sentence(card)}
{_examples(card, signatures)}
Exported with {versions}; revision {card["git_revision"] or "not known"}. All of this is in
policy.json.
"""


def _origin_lines(card: Mapping[str, Any]) -> list[str]:
    lines = []
    if "algorithm" in card:
        steps = ", ".join(f"{count} updates of {stage}" for stage, count in card["steps"].items())
        task = "" if card["task"] is None else f" for {card['task']}"
        lines.append(
            f"A greedy policy{task}, trained offline by {card['algorithm']}: {steps}, "
            f"seed {card['seed']}."
        )
    if card.get("warning"):
        lines.append(f"**Warning: {card['warning']}**")
    if "data" in card:
        data = card["data"]
        lines.append(
            f"Data: {data['source']}, {data['transitions']} transitions, "
            f"SHA-256 of its arrays {data['checksum']}."
        )
    scores = card.get("scores")
    if scores is not None:
        normalized = scores.get("normalized_score")
        episodes = enumerate(zip(scores["lengths"], scores["returns"]))
        rows = [[f"{i}", f"{length}", f"{value:.2f}"] for i, (length, value) in episodes]
        summary = (
            f"Return over {len(scores['returns'])} episodes: {scores['return_mean']:.1f} "
            f"(standard deviation {scores['return_std']:.1f})"
        )
        summary += "." if normalized is None else f", normalized {normalized:.1f}."
        table = tables.table([["episode", "steps", "return"], *rows], "r", markdown=True)
        lines += ["", summary, "", table]
    return lines


def _signature_table(signatures: Mapping[str, Any]) -> str:
    def cell(tensors: Mapping[str, Any]) -> str:
        return ", ".join(
            f"`{name}` {t['dtype']} [{', '.join('B' if n is None else str(n) for n in t['shape'])}]"
            for name, t in tensors.items()
        )

    rows = [[f"`{k}`", cell(s["inputs"]), cell(s["outputs"])] for k, s in signatures.items()]
    return tables.table([["signature", "inputs", "outputs"], *rows], markdown=True)


def _range_sentence(card: Mapping[str, Any]) -> str:
    minimum, maximum = card["observation"]["minimum"], card["observation"]["maximum"]
    if minimum is None or maximum is None:
        return ""
    rows = [[f"{i}", f"{a:.6g}", f"{b:.6g}"] for i, (a, b) in enumerate(zip(minimum, maximum))]
    table = tables.table([["observation", "least", "most"], *rows], "r", markdown=True)
    return f"\n\nThe policy also answers outside the range of the data, untrained:\n\n{table}"


def _examples(card: Mapping[str, Any], signatures: Mapping[str, Any]) -> str:
    if "serving_default" not in signatures:
        return ""
    examples = []
    for name, signature in signatures.items():
        body = serving_requests.rest_body(name, serving_requests.example_inputs(signature))
        examples.append(f"curl -d '{body}' localhost:8501/v1/models/{card['name']}:predict")
    arguments = json.dumps([[0.0] * card["observation"]["shape"][0]])
    requests = "\n".join(examples)
    return f"""
```python
import tensorflow as tf

policy = tf.saved_model.load("{card["name"]}/VERSION")
action = policy.signatures["serving_default"](observation=tf.constant({arguments}))["action"]
```

With TensorFlow Serving on this model's directory:

```
{requests}
```
"""
