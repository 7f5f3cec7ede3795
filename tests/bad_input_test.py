"""A table of bad input: each costs one sentence and exit code 2, and nothing is written.

A case is (arguments, what the sentence must match). In arguments, `{w}` stands for a directory with
the damaged files that `world` makes.
"""

import json
import os
import pickle
import re
import shutil

import h5py
import numpy as np
import pytest
import tensorflow as tf

from fbrc_agent.datasets import sources
from fbrc_agent.networks import behavior_network, saved_network
from fbrc_agent.training import run_directory
from tests.helpers import tiny_runs

# What is bad.


def _data_files(w, good):
    """Files of 600 rows, each with one thing wrong."""
    with h5py.File(good, "r") as file:
        columns = {key: file[key][()] for key in file}
        attributes = dict(file.attrs)

    def write(name, replace=None, drop=(), edit=None):
        with h5py.File(w / f"{name}.hdf5", "w") as file:
            for key, value in {**columns, **(replace or {})}.items():
                if key not in drop:
                    file[key] = value
            file.attrs.update(attributes)
            if edit is not None:
                edit(file)

    def one_value(key, index, value, dtype=np.float32):
        array = columns[key].astype(dtype)
        array[index] = value
        return {key: array}

    def rewards(make):
        return {"drop": ("rewards",), "edit": lambda file: make(file)}

    def attribute(name, value):
        return {"edit": lambda file: file.attrs.__setitem__(name, value)}

    def virtual(file):
        layout = h5py.VirtualLayout((600,), "f4")
        layout[:] = h5py.VirtualSource(str(good), "rewards", (600,))
        file.create_virtual_dataset("rewards", layout)

    (w / "outside").write_bytes(bytes(2400))
    write("no_rewards", drop=("rewards",))
    write("no_keys", drop=tuple(columns))
    write("flat", {"observations": columns["observations"].ravel()})
    write("cube", {"actions": columns["actions"][:, :, None]})
    write("wide", {"rewards": np.ones([600, 2], np.float32)})
    write("scalar", {"rewards": np.float32(3)})
    write("null", **rewards(lambda f: f.__setitem__("rewards", h5py.Empty("f4"))))
    write("short", {"rewards": columns["rewards"][:-1]})
    write("text", {"rewards": np.array([b"x"] * 600)})
    write("complex", {"actions": columns["actions"].astype(np.complex64)})
    write("compound", {"rewards": np.zeros(600, [("a", "f4")])})
    write("nan", one_value("observations", (17, 1), np.nan))
    write("inf", one_value("rewards", 23, np.inf))
    write("beyond_float32", one_value("rewards", 24, 1e300, np.float64))
    write("nan_terminal", one_value("terminals", 3, np.nan))
    write("two_terminal", one_value("terminals", 4, 2, np.uint8))
    write("half_timeout", one_value("timeouts", 5, 0.5))
    write("outside_bounds", one_value("actions", 5, 2.5))
    write("empty", {key: value[:0] for key, value in columns.items()})
    write("one_row", {key: value[:1] for key, value in columns.items()})
    write("size_0", {"observations": columns["observations"][:, :0]})
    write("size_4", {"observations": np.zeros([600, 4], np.float32)})
    external_link = h5py.ExternalLink(str(good), "/rewards")
    write("external_link", **rewards(lambda f: f.__setitem__("rewards", external_link)))
    loop = h5py.SoftLink("/rewards")
    write("link_loop", **rewards(lambda f: f.__setitem__("rewards", loop)))
    write("group", **rewards(lambda f: f.create_group("rewards")))
    outside = [(str(w / "outside"), 0, 2400)]
    write(
        "external_storage",
        **rewards(lambda f: f.create_dataset("rewards", (600,), "f4", external=outside)),
    )
    write("virtual", **rewards(virtual))
    write("text_bound", **attribute("action_minimum", "low"))
    write("two_bounds", **attribute("action_minimum", [-1.0, -1.0]))
    write("nan_bound", **attribute("action_minimum", [np.nan]))
    write("half_bounds", edit=lambda file: file.attrs.__delitem__("action_minimum"))
    write("text_limit", drop=("timeouts",), **attribute("max_episode_steps", "many"))
    whole = good.read_bytes()
    (w / "truncated.hdf5").write_bytes(whole[:-1000])
    (w / "header.hdf5").write_bytes(whole[:60] + b"\xff" * 30 + whole[90:])
    (w / "words.hdf5").write_text("observations, actions")
    (w / "no_bytes.hdf5").write_bytes(b"")
    (w / "directory.hdf5").mkdir()
    (w / "dangling.hdf5").symlink_to("nowhere")


def _gin_files(w):
    (w / "bytes.gin").write_bytes(b"\xff\xfe\x00x")
    (w / "nothing.gin").write_text("")
    (w / "itself.gin").write_text(f"include '{w / 'itself.gin'}'\n")
    (w / "quote.gin").write_text("train.task = 'Pendulum-v1\n")
    (w / "parenthesis.gin").write_text("train.pretrained = {'behavior':\n")
    (w / "macro.gin").write_text("train.data = %DATA\n")


def _policies(w):
    def save(name, size=3, signature="serving_default", dtype=tf.float32):
        module = tf.Module()
        module.weights = tf.Variable(tf.zeros([size, 1], dtype))
        spec = tf.TensorSpec([None, size], dtype, name="observation")
        module.action = tf.function(
            lambda observation: {"action": observation @ module.weights}, input_signature=[spec]
        )
        tf.saved_model.save(module, str(w / name), signatures={signature: module.action})

    save("policy")
    save("policy_of_5", size=5)
    save("policy_named", signature="other")
    save("policy_float64", dtype=tf.float64)
    for name in ("graph", "graph_empty", "no_weights", "weights", "weights_cut", "index"):
        shutil.copytree(w / "policy", w / f"policy_{name}")
    (w / "policy_graph/saved_model.pb").write_bytes(b"\xff" * 50)
    (w / "policy_graph_empty/saved_model.pb").write_bytes(b"")
    shutil.rmtree(w / "policy_no_weights/variables")
    weights = "variables/variables.data-00000-of-00001"
    size = (w / "policy" / weights).stat().st_size
    (w / "policy_weights" / weights).write_bytes(b"\xff" * size)
    (w / "policy_weights_cut" / weights).write_bytes(b"")
    (w / "policy_index/variables/variables.index").write_bytes(b"abc")
    (w / "policy_pickle").mkdir()
    (w / "policy_pickle/saved_model.pb").write_bytes(pickle.dumps({"action": 0}))
    (w / "policy.pkl").write_bytes(pickle.dumps({"action": 0}))
    (w / "no_policy").mkdir()


def _runs(w, good):
    data = sources.load_dataset(str(good)).description()
    stages = [{"name": name, "label": name, "panels": []} for name in ("behavior", "fbrc")]
    identity = {
        **{"algorithm": "fbrc", "stages": stages, "task": "Pendulum-v1", "seed": 0},
        **{"batch_size": 32, "data": data, "pretrained": {}},
    }

    def run(name, files=None, **changes):
        root_dir = w / name
        root_dir.mkdir()
        (root_dir / "lock").touch()
        run_directory.write_identity(str(root_dir), {**identity, **changes})
        for file, content in (files or {}).items():
            (root_dir / file).parent.mkdir(parents=True, exist_ok=True)
            (root_dir / file).write_bytes(content)
        return root_dir

    line = b'{"stage": "fbrc", "step": 1, "seconds": 1.0, "critic_loss": 1.0}\n'
    config = (
        b"import fbrc_agent.agents.fbrc\nimport fbrc_agent.training.trainer\n"
        b"train.algorithm = @fbrc()\n"
    )
    run("run_begun", {"operative_config.gin": config})
    run("run_of_no_algorithm", {"operative_config.gin": b""})
    run("run_without_config")
    run("run_of_hopper", {"metrics.jsonl": line}, task="Hopper-v4")
    run("run_of_other_data", {"metrics.jsonl": line}, data={**data, "checksum": "0" * 64})
    run("run_of_seed_1", {"metrics.jsonl": line}, seed=1)
    run("run_whole", {"metrics.jsonl": line})
    sizeless = {key: value for key, value in data.items() if key != "action_minimum"}
    run("run_sizes", {"operative_config.gin": config}, data=sizeless)
    run("run_json", {"run.json": b"{"})
    run("run_json_list", {"run.json": b"[]"})
    run("run_json_short", {"run.json": json.dumps({**identity, "data": {}}).encode()})
    run("run_json_bytes", {"run.json": b"\xff\xfe"})
    run("run_result", {"result.json": b"{", "metrics.jsonl": line})
    run("run_result_short", {"result.json": b"{}", "metrics.jsonl": line})
    run("run_metrics", {"metrics.jsonl": line + b'{"step": 3}\n'})
    run("run_metrics_bytes", {"metrics.jsonl": b"\xff\xfe\n"})
    run("run_metrics_text", {"metrics.jsonl": line.replace(b": 1.0}", b': "x"}')})
    run("run_config", {"operative_config.gin": b"FbrcAgent.gamma = )\n"})
    run("run_config_bytes", {"operative_config.gin": b"\xff\xff"})
    run("run_behavior", {"behavior/trained/network.json": b"{"})
    run("run_behavior_short", {"behavior/trained/network.json": b"{}"})
    time_step_spec, action_spec = saved_network.specs_from_description(data)
    network = behavior_network.MixtureBehaviorNetwork(
        time_step_spec.observation, action_spec, fc_layer_params=(16,)
    )
    network.create_variables()
    description = {"algorithm": "behavior", "data": data, "result": {"steps": 20}}
    saved_network.save(str(run("run_index") / "behavior"), network, description)
    shutil.copytree(w / "run_index", w / "run_weights")
    (w / "run_index/behavior/trained/weights.index").unlink()
    weights = w / "run_weights/behavior/trained/weights.data-00000-of-00001"
    weights.write_bytes(weights.read_bytes()[:100])
    wide = behavior_network.MixtureBehaviorNetwork(
        time_step_spec.observation, action_spec, fc_layer_params=(32,)
    )
    wide.create_variables()
    saved_network.save(str(run("run_architecture") / "behavior"), wide, description)


@pytest.fixture(scope="module")
def world(tmp_path_factory, pendulum_data):
    """The directory `{w}`."""
    w = tmp_path_factory.mktemp("w")
    shutil.copy(pendulum_data, w / "good.hdf5")
    _data_files(w, pendulum_data)
    _gin_files(w)
    _policies(w)
    _runs(w, pendulum_data)
    (w / "file").write_text("mine")
    return w


# The table.


def train(root_dir="{w}/run", data="{w}/good.hdf5", bindings=(), **sizes):
    """Arguments of `train` on good data, but for what is given."""
    sizes.setdefault("NUM_EVAL_EPISODES", 0)
    return tiny_runs.train_arguments(root_dir, data, bindings=bindings, **sizes)


def _of_data(name, sentence):
    return train(data=f"{{w}}/{name}.hdf5"), rf"/{name}\.hdf5: {sentence}"


def _of_binding(binding, sentence):
    return train(bindings=[binding]), sentence


def _of_run(name, sentence):
    return train(root_dir=f"{{w}}/{name}"), sentence


def _of_policy(name, sentence):
    arguments = ["evaluate", "--policy", f"{{w}}/{name}", "--task", "Pendulum-v1"]
    return arguments, rf"/{name}' {sentence}"


def _of_collect(binding, sentence):
    arguments = ["collect", "--output", "{w}/new.hdf5", "--gin_file", "collect/pendulum.gin"]
    return [*arguments, "--gin_bindings", binding], sentence


_EVALUATE = ["evaluate", "--policy", "{w}/policy", "--task", "Pendulum-v1"]
_COLLECT = ["collect", "--gin_file", "collect/pendulum.gin", "--output"]
_NOT_HDF5 = "cannot be read as HDF5, it may be truncated or of another format"
_DAMAGED = "cannot be loaded, it may be damaged .*; export the policy again"
_LINKED = r"is a link to elsewhere \({}\); it must be a dataset in the file itself"
_ELSEWHERE = "the values of 'rewards' are kept in other files; they must be in the file itself"
_LAYERS = r"it must be a tuple of integers of 1 or more, such as \(256, 256\)"
_OPTIMIZER = r"it must be an optimizer, such as @Adam\(\)"
_COUNT = "it must be an integer of 0 or more"
_RESTORE = "restore it, or take another directory"

CASES = [
    # Flags.
    (["train", "--rootdir", "x"], "unrecognized arguments: --rootdir x; `train --help` lists"),
    (["train", "x"], "unrecognized arguments: x; `train --help`"),
    (["train", "--gin_file"], "--gin_file: expected at least one argument"),
    (["train", "--gin_file", ""], "--gin_file: is empty; it must be a path"),
    (["train", "--root_dir", ""], "--root_dir: is empty; it must be a path"),
    (["train", "--strategy", "mirored"], "'mirored'; it must be 'none', 'mirrored' or 'multi_w"),
    (["train", "--strategy", "multi_worker"], "needs TF_CONFIG, for example"),
    (["export"], "required: --root_dir, --output; `export --help` lists the flags"),
    (["export", "--root_dir", "", "--output", "x"], "--root_dir: is empty; it must be a path"),
    (["evaluate", "--policy", "x"], r"'x' is not a SavedModel directory: it has no x/saved_model"),
    ([*_EVALUATE[:-2]], "card names no task: there is no environment to evaluate it in; give"),
    ([*_EVALUATE, "--episodes", "ten"], "--episodes: invalid int value: 'ten'"),
    ([*_EVALUATE, "--episodes", "0"], "num_episodes is 0; it must be an integer of 1 or more"),
    ([*_EVALUATE, "--seed", "-1"], "seed is -1; it must be an integer of 0 or more"),
    ([*_EVALUATE, "--seed", "1.5"], "--seed: invalid int value: '1.5'"),
    (["evaluate", "--policy", "", "--task", "x"], "--policy: is empty"),
    ([*_EVALUATE, "--task", "Pendulm-v1"], "'Pendulm-v1': .*did you mean Pendulum-v1"),
    ([*_EVALUATE, "--task", "pen-human-v1"], "pen-human-v1: there is no environment"),
    (["collect"], "required: --output"),
    (["collect", "--output", "{w}/x.hdf5"], "--gin_file is needed, for example collect/pendulum"),
    ([*_COLLECT, ""], "--output: is empty; it must be a path"),
    ([*_COLLECT, "{w}/good.hdf5"], r"'.*/good\.hdf5' exists already; name a new file"),
    ([*_COLLECT, "{w}/none/x.hdf5"], r"/none/x\.hdf5: cannot be written; it must be the name"),
    (["plot"], "required: root_dir"),
    (["plot", ""], "root_dir: is empty; it must be a path"),
    (["plot", "{w}/none"], r"/none holds no run: there is no .*/none/run\.json"),
    (["plot", "{w}/file"], r"/file holds no run: there is no .*/file/run\.json"),
    (["benchmark", "--rounds", "x"], "--rounds: invalid int value: 'x'"),
    (["benchmark", "--rounds", "0"], "--rounds is 0; it must be an integer of 1 or more"),
    (["benchmark", "--only", "sac"], "--only sac: there is no such row; the rows are"),
    (["benchmark", "--output", ""], "--output: is empty"),
    (["benchmark", "--output", "{w}"], "cannot be written; it must be the name of a file"),
    (["benchmark", "--output", "{w}/none/x"], "/none/x: cannot be written; it must be the name"),
    # gin files.
    (["train", "--gin_file", "none.gin"], r"\(none\.gin\): Unable to open file: none\.gin\."),
    (["train", "--gin_file", "{w}"], "gin configuration .*: Unable to open file: "),
    (["train", "--gin_file", "{w}/bytes.gin"], r"/bytes\.gin\): 'utf-8' codec can't decode"),
    (["train", "--gin_file", "{w}/nothing.gin"], r"`train` not provided in config: \['algor"),
    (["train", "--gin_file", "{w}/itself.gin"], r"/itself\.gin\): a file or macro includes itself"),
    (["train", "--gin_file", "{w}/quote.gin"], r"/quote\.gin.* line 1\."),
    (
        ["train", "--gin_file", "{w}/parenthesis.gin"],
        r"/parenthesis\.gin\): (unexpected )?EOF in multi-line statement in line \d\.",
    ),
    (["train", "--gin_file", "{w}/macro.gin"], "No bindings specified for 'DATA/gin.macro'"),
    # gin bindings.
    (
        ["reproduce", "lambda", "--gin_bindings", "grid.sed = 3"],
        "--gin_bindings: Configurable 'grid' doesn't have a parameter named 'sed'",
    ),
    _of_binding("FbrcAgnt.gamma = 0.9", "No configurable matching 'FbrcAgnt'"),
    _of_binding("FbrcAgent.gama = 0.9", "doesn't have a parameter named 'gama'"),
    _of_binding("FbrcAgent.gamma", "in the binding 'FbrcAgent.gamma'"),
    _of_binding("import nowhere", "No module named 'nowhere'"),
    _of_binding("train.steps = %NONE", "No bindings specified for 'NONE/gin.macro'"),
    _of_binding("train.task = 3", "The task is 3; it must be an id such as"),
    _of_binding("train.data = 3", "data source is 3; it must be the path of a file"),
    _of_binding("train.data = 'embedded:x'", "embedded:x: .* no such data file; it has hopper-m"),
    _of_binding("train.seed = 'a'", "seed is 'a'; it must be an integer from 0 to 2147483647"),
    _of_binding("train.seed = True", "seed is True; it must be an integer"),
    _of_binding("train.seed = 2147483648", "seed is 2147483648; it must be an integer from 0"),
    _of_binding("train.batch_size = 0", "batch_size is 0; it must be an integer of 1 or more"),
    _of_binding("train.batch_size = 598", "batch_size is 598; .* 597, the number of transitions"),
    _of_binding(
        "train.algorithm = 'fbrc'", r"algorithm is 'fbrc'; it must be one, such as @fbrc\("
    ),
    _of_binding("train.algorithm = @behavor()", "No configurable matching reference '@behavor"),
    _of_binding("BEHAVIOR_STEPS = 'many'", rf"_steps\['behavior'\] is 'many'; {_COUNT}"),
    _of_binding(
        "BEHAVIOR_STEPS = 0", r"\['behavior'\] is 0 and .*; it must be 1 or more, or train"
    ),
    _of_binding("train.pretraining_steps = 20", "pretraining_steps is 20; it must be a dictionary"),
    _of_binding("train.steps = 1e6", rf"train.steps is 1000000\.0; {_COUNT}"),
    _of_binding("train.log_interval = -1", f"train.log_interval is -1; {_COUNT}"),
    _of_binding("train.pretrained = 3", "train.pretrained is 3; it must be a dictionary by names"),
    _of_binding(
        "train.pretrained = {'behavior': 3}", r"\['behavior'\] is 3; it must be a directory"
    ),
    _of_binding(
        "train.pretrained = {'behavior': 'x'}", "is 'x', which holds no trained network; it"
    ),
    _of_binding("train.pretrained = {'mu': 'x'}", r"'fbrc' takes the networks of \['behavior'\]"),
    _of_binding("load_dataset.action_bounds = (2, -2)", r"\[2.0\] and \[-2.0\]; each minimum must"),
    _of_binding("load_dataset.action_bounds = 3", r"is 3; it must be \(minimum, maximum\)"),
    _of_binding("FbrcAgent.gamma = 'a'", "gamma is 'a'; it must be a .* from 0 to 1.* 'FbrcAgent'"),
    _of_binding("FbrcAgent.gamma = 1.5", "gamma is 1.5; it must be a number from 0 to 1"),
    _of_binding("FbrcAgent.gamma = %TASK", "gamma is 'Pendulum-v1'; it must be a number"),
    _of_binding("FbrcAgent.target_update_tau = 0", "tau is 0; it must be a number above 0"),
    _of_binding("FbrcAgent.target_update_period = 0", "period is 0; it must be an integer of 1"),
    _of_binding("FbrcAgent.gradient_penalty_weight = -1.0", "weight is -1.0; .* of 0 or more"),
    _of_binding("FbrcAgent.gradient_penalty_weight = 1e999", "weight is inf; .* a finite number"),
    _of_binding("FbrcAgent.gradient_clipping = -1", "is -1; it must be a number above 0, or None"),
    _of_binding("FbrcAgent.reward_bonus = None", "reward_bonus is None; it must be a finite numbe"),
    _of_binding("FbrcAgent.include_critic_entropy_term = 1", "is 1; it must be True or False"),
    _of_binding("FbrcAgent.share_actor_sample = 1", "is 1; it must be True or False"),
    _of_binding("FbrcAgent.actor_optimizer = 'adam'", f"actor_optimizer is 'adam'; {_OPTIMIZER}"),
    _of_binding("FbrcAgent.critic_optimizer = None", f"critic_optimizer is None; {_OPTIMIZER}"),
    _of_binding(
        "BehaviorAgent.optimizer = @Adam", f"optimizer is .*; {_OPTIMIZER}.*'BehaviorAgent'"
    ),
    _of_binding("actor/Adam.learning_rate = -1.0", "rate of actor_optimizer is -1.*; .* above 0"),
    _of_binding(
        "actor/Adam.learning_rate = 'fast'", "'fbrc' cannot be made: .*'fast'.* 'Adam' .*'actor'"
    ),
    _of_binding("piecewise_decay.values = (1e-3,)", "'behavior' cannot be made: .*'piecewise"),
    _of_binding("MixtureBehaviorNetwork.num_components = 0", "components is 0; it must be an int"),
    _of_binding("MixtureBehaviorNetwork.fc_layer_params = 16", f"params is 16; {_LAYERS}"),
    _of_binding("create_offset_network.fc_layer_params = (0,)", rf"params is \(0,\); {_LAYERS}"),
    _of_binding("create_actor_network.fc_layer_params = 'ab'", f"params is 'ab'; {_LAYERS}"),
    _of_binding("create_actor_network.log_std_bounds = (2, -20)", r"is \(2, -20\); .* lower one f"),
    _of_collect("LEVEL = 'good'", "collect.level is 'good'; it must be 'random', 'medium'"),
    _of_collect("SEED = 'a'", "collect.seed is 'a'; it must be an integer of 0 or more"),
    _of_collect(
        "collect.num_transitions = 2.5", "num_transitions is 2.5; it must be an integer of 2"
    ),
    _of_collect("collect.medium_return = 'x'", "medium_return is 'x'; it must be a finite number"),
    _of_collect("collect.medium_return = None", "collect.medium_return is None; the level 'medium"),
    _of_collect("TASK = 'pen-human-v1'", "'pen-human-v1' has no Gymnasium environment"),
    _of_collect(
        "OnlineSac.batch_size = 0", "OnlineSac.batch_size is 0; it must be an integer of 1"
    ),
    _of_collect("make_sac_agent.gamma = 3.0", "gamma is 3.0; it must be a number from 0 to 1"),
    # Data files.
    _of_data("none", "there is no such file; the data source must be the path of a file"),
    _of_data("dangling", "there is no such file"),
    _of_data("directory", "is a directory with no data file; it must have files that end"),
    _of_data("words", _NOT_HDF5),
    _of_data("no_bytes", _NOT_HDF5),
    _of_data("truncated", _NOT_HDF5),
    _of_data("header", _NOT_HDF5),
    _of_data("no_rewards", "has no key 'rewards'; it has actions, .* and a D4RL file has"),
    _of_data("no_keys", "has no key 'observations'; it has none"),
    _of_data("flat", r"observations has shape \(1800,\); it must be \[rows, size\]"),
    _of_data("cube", r"actions has shape \(600, 1, 1\); it must be \[rows, size\]"),
    _of_data("wide", r"rewards has shape \(600, 2\); it must be \[rows\]"),
    _of_data("scalar", r"rewards has shape \(\); it must be \[rows\]"),
    _of_data("null", "rewards has a type but no values; it must hold rows"),
    _of_data(
        "short", r"arrays have different numbers of rows \(.*rewards 599.*\); they must be equal"
    ),
    _of_data("text", r"rewards has type \|S1; it must hold real numbers"),
    _of_data("complex", "actions has type complex64; it must hold real numbers"),
    _of_data("compound", "rewards has type .*; it must hold real numbers"),
    _of_data("nan", "observations has nan in row 17; every value must be a finite float32"),
    _of_data("inf", "rewards has inf in row 23; every value must be a finite float32"),
    _of_data("beyond_float32", "rewards has .* in row 24; every value must be a finite float32"),
    _of_data("nan_terminal", "terminals has nan in row 3; every value must be"),
    _of_data("two_terminal", r"terminals has 2 in row 4; every value must be 0 or 1"),
    _of_data("half_timeout", r"timeouts has 0\.5 in row 5; every value must be 0 or 1"),
    _of_data("outside_bounds", r"actions has \[2\.5\] in row 5; every .*; pass action_bounds="),
    _of_data("empty", "is empty; it must have at least one transition"),
    _of_data("one_row", "has no usable transition; it must have two consecutive rows"),
    _of_data("size_0", r"observations has shape \(600, 0\); its size must not be 0"),
    _of_data("external_link", "key 'rewards' " + _LINKED.format("ExternalLink")),
    _of_data("link_loop", "key 'rewards' " + _LINKED.format("SoftLink")),
    _of_data("group", "key 'rewards' is a group; it must be a dataset"),
    _of_data("external_storage", _ELSEWHERE),
    _of_data("virtual", _ELSEWHERE),
    _of_data("text_bound", r"action_bounds is \('low', .*; it must be \(minimum, maximum\)"),
    _of_data("two_bounds", r"action_bounds is .*; it must be .* each a number or 1 numbers"),
    _of_data("nan_bound", "action bounds are .*; each minimum must be finite and below"),
    _of_data("half_bounds", "of the .* it has only action_maximum; it must have both or neither"),
    _of_data("text_limit", "max_episode_steps is 'many'; it must be a positive integer"),
    (
        train(data="{w}/size_4.hdf5", NUM_EVAL_EPISODES=2),
        r"/size_4\.hdf5 .* sizes \(4, 1\), but Pendulum-v1 has \(3, 1\); train.task must be",
    ),
    # Directories of runs.
    _of_run("file", "/file: File exists; give another path"),
    _of_run("file/run", "/file/run: Not a directory; give a path whose parents are directories"),
    _of_run("run_of_hopper", "run with task = Hopper-v4, not Pendulum-v1; give another root_dir"),
    _of_run("run_of_seed_1", "run with seed = 1, not 0; give another root_dir to start again"),
    _of_run("run_of_other_data", "run with data checksum = 0000.*; give another root_dir"),
    _of_run("run_json", rf"/run_json/run\.json is not the JSON that a run writes .*{_RESTORE}"),
    _of_run("run_json_list", rf"/run\.json .* has no entry 'algorithm'; {_RESTORE}"),
    _of_run("run_json_short", rf"/run\.json .* has no entry 'data.source'; {_RESTORE}"),
    _of_run("run_json_bytes", rf"/run\.json is not the JSON that a run writes .*{_RESTORE}"),
    _of_run("run_result", rf"/result\.json is not the JSON that a run writes .*{_RESTORE}"),
    _of_run("run_result_short", rf"/result\.json .* has no entry 'policy'; {_RESTORE}"),
    _of_run("run_metrics", r"/metrics\.jsonl: line 2 is not one that a run writes; remove this l"),
    _of_run("run_metrics_bytes", r"/metrics\.jsonl: line 1 is not one that a run writes"),
    _of_run("run_metrics_text", r"/metrics\.jsonl: line 1 is not one that a run writes"),
    _of_run("run_config_bytes", rf"/operative_config\.gin is not text .*{_RESTORE}"),
    _of_run("run_behavior", rf"/network\.json is not the JSON that a run writes .*{_RESTORE}"),
    _of_run("run_behavior_short", rf"/network\.json .* no entry 'algorithm'; {_RESTORE}"),
    _of_run("run_index", "/trained/weights cannot be read .*; remove .*/trained, and the run"),
    _of_run("run_weights", "/trained/weights cannot be read .*; remove .*/trained, and the run"),
    _of_run("run_architecture", r"/trained/weights cannot be read .*\(32,\).*\(16,\).*; remove"),
    (["export", "--root_dir", "{w}/none", "--output", "{w}/o"], "/none holds no run: there is no"),
    (
        ["export", "--root_dir", "{w}/run_begun", "--output", "{w}/o"],
        "There is no checkpoint in .*/run_begun/fbrc/train/checkpoints yet",
    ),
    (
        ["export", "--root_dir", "{w}/run_without_config", "--output", "{w}/o"],
        "operative_config.gi",
    ),
    (
        ["export", "--root_dir", "{w}/run_of_no_algorithm", "--output", "{w}/o"],
        r"train\.algorithm is None; it must be one, such as @fbrc\(\)",
    ),
    (["export", "--root_dir", "{w}/run_config", "--output", "{w}/o"], r"config\.gin, line 1"),
    (["export", "--root_dir", "{w}/run_json", "--output", "{w}/o"], r"/run\.json is not the JSON"),
    (["export", "--root_dir", "{w}/run_sizes", "--output", "{w}/o"], "no entry 'action_minimum'"),
    (["plot", "{w}/run_begun"], r"/metrics\.jsonl has no line yet; there is nothing to plot"),
    (["plot", "{w}/run_metrics"], r"/metrics\.jsonl: line 2 is not one that a run writes"),
    (["plot", "{w}/run_result"], r"/result\.json is not the JSON that a run writes"),
    (["plot", "{w}/run_json_short"], r"/run\.json .* has no entry 'data.source'"),
    (["plot", "{w}/run_whole", "{w}/run_of_hopper"], "of Hopper-v4, .*; plot the runs of one task"),
    (["plot", "{w}/run_whole", "--output", "{w}/none/x.png"], r"/none/x\.png"),
    # Policies.
    _of_policy("none", r"is not a SavedModel directory: it has no .*/none/saved_model\.pb"),
    _of_policy("no_policy", "is not a SavedModel directory"),
    _of_policy("policy.pkl", "is not a SavedModel directory"),
    _of_policy("policy_pickle", _DAMAGED),
    _of_policy("policy_graph", _DAMAGED),
    _of_policy("policy_graph_empty", _DAMAGED),
    _of_policy("policy_no_weights", _DAMAGED),
    _of_policy("policy_weights", _DAMAGED),
    _of_policy("policy_weights_cut", _DAMAGED),
    _of_policy("policy_index", _DAMAGED),
    _of_policy("policy_named", r"are \['other'\]; one must be 'serving_default'"),
    _of_policy("policy_of_5", r"has observation \[None, 5\] .* needs observation \[None, 3\]"),
    _of_policy("policy_float64", "has observation .* float64 .* needs observation .* float32"),
]


def _snapshot(directory):
    """Names, sizes and times of change of everything below a directory."""
    return sorted(
        (str(path), path.lstat().st_size, path.lstat().st_mtime_ns) for path in directory.rglob("*")
    )


def _name(case):
    """A readable id: the arguments without what all cases of `train` share."""
    arguments = case[0]
    usual = set(train())
    return " ".join(a for a in arguments if a not in usual) or arguments[0]


def _run(world, arguments):
    return tiny_runs.run_command(*(argument.replace("{w}", str(world)) for argument in arguments))


@pytest.fixture
def elsewhere(tmp_path, monkeypatch):
    """An empty current directory, without a cluster."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("TF_CONFIG", raising=False)
    return tmp_path


@pytest.mark.parametrize("arguments, sentence", CASES, ids=map(_name, CASES))
def test_bad_input_costs_one_sentence_and_writes_nothing(
    world, elsewhere, capfd, arguments, sentence
):
    before = _snapshot(world)
    assert _run(world, arguments) == 2
    captured = capfd.readouterr()
    assert captured.out == ""
    assert captured.err.count("\n") == 1, captured.err
    assert captured.err.startswith(f"{arguments[0]}: ")
    assert "Traceback" not in captured.err
    assert re.search(sentence, captured.err.strip()), captured.err
    assert _snapshot(world) == before
    assert os.listdir(elsewhere) == []


@pytest.mark.parametrize(
    "arguments",
    [
        ["train", "--rootdir", "x"],
        train(data="{w}/nan.hdf5"),
        train(bindings=["FbrcAgent.gamma = 2.0"]),
        ["evaluate", "--policy", "{w}/policy_index", "--task", "Pendulum-v1"],
        ["plot", "{w}/run_metrics"],
    ],
    ids=["flag", "data", "binding", "policy", "run"],
)
def test_debug_shows_the_traceback_of_bad_input(world, elsewhere, capfd, arguments):
    assert _run(world, [*arguments[:1], "--debug", *arguments[1:]]) == 2
    lines = capfd.readouterr().err.splitlines()
    assert lines[0].startswith("Traceback")
    assert lines[-1].startswith(f"{arguments[0]}: ")
