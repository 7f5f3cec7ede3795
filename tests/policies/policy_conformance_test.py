"""The agents' policies wherever TF-Agents' policies go: PolicySaver, policy_loader, TFLite, disk.

TF-Agents' own tests of PolicySaver and policy_loader, imported from its wheel, run on the policies
of FbrcAgent and BehaviorAgent: these stand in for the Q policies that upstream builds. Each method
left out has its reason; what it tests is restated below where our policies promise it.
"""

import collections
import functools
import types

import numpy as np
import pytest
import tensorflow as tf
from tf_agents.agents.sac import tanh_normal_projection_network as tanh_normal
from tf_agents.networks import actor_distribution_rnn_network
from tf_agents.policies import greedy_policy, policy_loader, policy_saver, py_tf_eager_policy
from tf_agents.specs import tensor_spec
from tf_agents.trajectories import time_step as ts

from fbrc_agent.agents import behavior as behavior_agent
from fbrc_agent.agents import fbrc as fbrc_agent
from fbrc_agent.networks import actor_network as actors
from fbrc_agent.networks import behavior_network, critic_network
from tests.helpers import upstream_tests

policy_saver_test = upstream_tests.load("policies.policy_saver_test")
policy_loader_test = upstream_tests.load("policies.policy_loader_test")

LOW, HIGH = np.float32([-1.0, 0.0]), np.float32([1.0, 3.0])
ACTION = tensor_spec.BoundedTensorSpec([2], tf.float32, LOW, HIGH, "action")


def create_actor(input_tensor_spec, action_spec):
    """A small actor."""
    return actors.create_actor_network(input_tensor_spec, action_spec, (8,))


def create_mu(input_tensor_spec, action_spec, joint=False):
    """A small behavior network."""
    return behavior_network.MixtureBehaviorNetwork(
        input_tensor_spec, action_spec, joint=joint, fc_layer_params=(8,)
    )


def create_recurrent_actor(input_tensor_spec, action_spec, lstm_size):
    """An actor with a policy state."""
    return actor_distribution_rnn_network.ActorDistributionRnnNetwork(
        input_tensor_spec,
        action_spec,
        input_fc_layer_params=None,
        lstm_size=lstm_size,
        output_fc_layer_params=None,
        continuous_projection_net=tanh_normal.TanhNormalProjectionNetwork,
    )


def create_fbrc_agent(time_step_spec, action_spec, actor_network):
    """An FbrcAgent."""
    observation_spec = time_step_spec.observation
    return fbrc_agent.FbrcAgent(
        time_step_spec,
        action_spec,
        critic_network.create_offset_network((observation_spec, action_spec), (8,)),
        actor_network,
        *(tf.keras.optimizers.legacy.Adam() for _ in range(3)),
        behavior_network=create_mu(observation_spec, action_spec),
    )


def create_behavior_agent(time_step_spec, action_spec, network):
    """A BehaviorAgent."""
    return behavior_agent.BehaviorAgent(
        time_step_spec, action_spec, network, tf.keras.optimizers.legacy.Adam()
    )


_NO_POLICY = "tests a function of policy_saver.py on specs; there is no policy in it"
_SEEDED = "the same as its seeded variant, which compares values instead of shapes"
_ONE_KIND = "the same as its NoState variant: our policies all have distribution networks"
_STATELESS = "wants a recurrent network; mu(a|s) is stateless"

LEFT_OUT = {
    "testNoSpecMissingOrColliding": _NO_POLICY,
    "testTrueIfMissing": _NO_POLICY,
    "testTrueIfCollision": _NO_POLICY,
    "testRenameSpecWithNestPaths": _NO_POLICY,
    "testDistributionNotImplemented": "its policy has no distribution; ours have one",
    "testSaveActionNotSeededNoStateNoInputFn": _SEEDED,
    "testSaveActionNotSeededWithStateNoInputFn": _SEEDED,
    "testSaveActionNotSeededDistributionNetworkNoInputFn": _SEEDED,
    "testSaveActionNotSeededNoStateInputFn": _SEEDED,
    "testSaveActionSeededDistributionNetworkNoInputFn": _ONE_KIND,
    "testRegisterFunction": "registers the policy's network and compares its outputs as tensors; "
    "ours returns a distribution: see test_registered_network_gives_the_same_mode",
    "testInferenceWithCheckpoint": "wants two samples to differ when all weights are -1, where the "
    "tanh of the actor is saturated: see test_checkpoint_updates_the_loaded_policy",
}
RUN = {
    "testSaveActionSeededNoStateNoInputFn",  # also converts to TFLite and compares its actions
    "testSaveActionSeededWithStateNoInputFn",
    "testSaveActionSeededNoStateInputFn",
    "testSaveGetInitialState",
    "testUniqueSignatures",
    "testRenamedSignatures",
    "testTrainStepSaved",
    "testTrainStepNotSaved",
    "testMetadataSaved",
    "testVariablesAccessible",
    "testCheckpointSave",
    "testUpdateWithCheckpoint",
    "testUpdateWithCompositeSavedModelAndCheckpoint",
    "testRegisterConcreteFunction",
    "test_initial_state_non_stateful",
}
_BOOKKEEPING = (
    "tests the saver's bookkeeping, which FbrcPolicySaverTest runs; it asks nothing of mu"
)
LEFT_OUT_OF_BEHAVIOR = {
    "testSaveActionSeededWithStateNoInputFn": _STATELESS,
    "testSaveGetInitialState": _STATELESS,
    "testUniqueSignatures": _BOOKKEEPING,
    "testRenamedSignatures": _BOOKKEEPING,
    "testTrainStepSaved": _BOOKKEEPING,
    "testTrainStepNotSaved": _BOOKKEEPING,
    "testMetadataSaved": _BOOKKEEPING,
    "testCheckpointSave": _BOOKKEEPING,
    "testRegisterConcreteFunction": _BOOKKEEPING,
}


class _OurPolicyInPlaceOfQPolicy:
    """Replaces what upstream's tests build; `create_network` and `create_agent` say by what."""

    def setUp(self):
        super().setUp()
        self._action_spec = ACTION
        monkeypatch = pytest.MonkeyPatch()
        self.addCleanup(monkeypatch.undo)

        def policy(time_step_spec, action_spec, **network):
            return self.create_agent(time_step_spec, action_spec, *network.values()).policy

        replacements = {
            "q_network": {"QNetwork": self.create_network},
            "q_rnn_network": {"QRnnNetwork": create_recurrent_actor},
            "q_policy": {"QPolicy": policy},
        }
        for module, names in replacements.items():
            monkeypatch.setattr(policy_saver_test, module, types.SimpleNamespace(**names))
        if not tf.__version__.startswith("2.15."):
            # TensorFlow 2.21's interpreter lacks the Flex ops that sample. With a GPU, upstream's
            # tests convert to TFLite and compare signatures, but do not run the model.
            monkeypatch.setattr(tf.test, "is_gpu_available", lambda: True)


@upstream_tests.leaving_out(LEFT_OUT)
class FbrcPolicySaverTest(_OurPolicyInPlaceOfQPolicy, policy_saver_test.PolicySaverTest):
    """pytest collects the inherited methods."""

    create_network = staticmethod(create_actor)
    create_agent = staticmethod(create_fbrc_agent)


@upstream_tests.leaving_out({**LEFT_OUT, **LEFT_OUT_OF_BEHAVIOR})
class BehaviorPolicySaverTest(_OurPolicyInPlaceOfQPolicy, policy_saver_test.PolicySaverTest):
    """pytest collects the inherited methods."""

    create_network = staticmethod(create_mu)
    create_agent = staticmethod(create_behavior_agent)


class _OurPolicyInPlaceOfAddNet:
    """Has one weight of the policy play upstream's single variable."""

    def setUp(self):
        super().setUp()
        observation_spec = tensor_spec.TensorSpec([1], tf.float32)
        network = self.create_network(observation_spec, ACTION, (1,))
        agent = self.create_agent(ts.time_step_spec(observation_spec), ACTION, network)
        self.policy = greedy_policy.GreedyPolicy(agent.policy)
        weight = self.policy.variables()[0]
        assert weight.shape == [1, 1]
        fill = types.SimpleNamespace(assign=lambda value: weight.assign([[value]]))
        self.net = types.SimpleNamespace(var=fill)
        self.saver = policy_saver.PolicySaver(self.policy, train_step=self.train_step)


@upstream_tests.leaving_out({})
class FbrcPolicyLoaderTest(_OurPolicyInPlaceOfAddNet, policy_loader_test.PolicyLoaderTest):
    """pytest collects the inherited methods; all of them are run."""

    create_network = staticmethod(actors.create_actor_network)
    create_agent = staticmethod(create_fbrc_agent)


@upstream_tests.leaving_out({})
class BehaviorPolicyLoaderTest(_OurPolicyInPlaceOfAddNet, policy_loader_test.PolicyLoaderTest):
    """pytest collects the inherited methods; all of them are run."""

    create_agent = staticmethod(create_behavior_agent)

    @staticmethod
    def create_network(observation_spec, action_spec, fc_layer_params):
        return behavior_network.MixtureBehaviorNetwork(
            observation_spec, action_spec, fc_layer_params=fc_layer_params
        )


def test_every_upstream_method_is_run_or_left_out():
    assert upstream_tests.methods(FbrcPolicySaverTest) == RUN
    assert upstream_tests.methods(BehaviorPolicySaverTest) == RUN - set(LEFT_OUT_OF_BEHAVIOR)
    assert upstream_tests.methods(policy_saver_test.PolicySaverTest) == RUN | set(LEFT_OUT)
    loader_methods = {"testLoad", "testMaterialize"}
    assert upstream_tests.methods(policy_loader_test.PolicyLoaderTest) == loader_methods
    assert upstream_tests.methods(FbrcPolicyLoaderTest) == loader_methods
    assert upstream_tests.methods(BehaviorPolicyLoaderTest) == loader_methods


# What follows are facts about our own policies, each of them saved once. They are saved without
# metadata, which upstream's testMetadataSaved covers: TF-Agents 0.19 leaves it out of checkpoints,
# and so cannot materialize a model that has some.

OBSERVATION = tensor_spec.TensorSpec([3], tf.float32, "observation")
TIME_STEP = ts.time_step_spec(OBSERVATION)
STEP_SAVED, STEP_CHECKPOINTED = 5, 8

Saved = collections.namedtuple(
    "Saved", "agent model checkpoint first_actions first_log_prob last_actions"
)


def time_step(batch_size, seed=0):
    """The first time steps of random observations."""
    observation = np.random.default_rng(seed).standard_normal((batch_size, 3))
    return ts.restart(tf.constant(observation, tf.float32), batch_size)


def some_actions():
    """Actions between the bounds."""
    return np.random.default_rng(1).uniform(LOW, HIGH, (4, 2)).astype(np.float32)


def python_actions(policy):
    """Returns the actions of a policy that takes one NumPy time step after the other."""
    batch = tf.nest.map_structure(lambda t: t.numpy(), time_step(4))
    steps = [tf.nest.map_structure(lambda t: t[i], batch) for i in range(4)]  # noqa: B023
    return np.stack([policy.action(step).action for step in steps])


def policy_of(kind):
    """Returns an agent, and its policy; "joint" is mu as one mixture over all dimensions."""
    agent_kind, _, policy_kind = kind.partition(" ")
    if agent_kind == "fbrc":
        agent = create_fbrc_agent(TIME_STEP, ACTION, create_actor(OBSERVATION, ACTION))
    else:
        mu = create_mu(OBSERVATION, ACTION, joint=agent_kind == "joint")
        agent = create_behavior_agent(TIME_STEP, ACTION, mu)
    if policy_kind == "greedy":
        return agent, greedy_policy.GreedyPolicy(agent.policy)
    return agent, agent.policy


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """Returns a function from a kind of policy to what is on disk of it."""

    @functools.cache
    def save(kind):
        tf.keras.utils.set_random_seed(0)
        directory = tmp_path_factory.mktemp("policies")
        model, checkpoint = str(directory / "model"), str(directory / "checkpoint")
        agent, policy = policy_of(kind)
        for v in policy.variables():
            v.assign(tf.random.normal(v.shape, stddev=0.5))
        step = tf.Variable(STEP_SAVED, dtype=tf.int64)
        saver = policy_saver.PolicySaver(
            policy,
            train_step=step,
            use_nest_path_signatures=False,
        )
        saver.save(model)
        first_actions = policy.action(time_step(4)).action.numpy()
        density = agent.policy.distribution(time_step(4)).action
        first_log_prob = density.log_prob(some_actions()).numpy()
        for v in policy.variables():
            v.assign(0.5 * v + 0.1)
        step.assign(STEP_CHECKPOINTED)
        saver.save_checkpoint(checkpoint)
        last_actions = policy.action(time_step(4)).action.numpy()
        return Saved(agent, model, checkpoint, first_actions, first_log_prob, last_actions)

    return save


@functools.cache
def plain_model(path):
    """Returns what plain TensorFlow loads."""
    return tf.saved_model.load(path)


@functools.cache
def python_policy(path):
    """Returns what TF-Agents loads for Python environments."""
    policy = policy_loader.load(path)
    assert isinstance(policy, py_tf_eager_policy.SavedModelPyTFEagerPolicy)
    return policy


GREEDY = ["fbrc greedy", "behavior greedy"]
STOCHASTIC = ["fbrc policy", "behavior policy", "joint policy"]  # also what collects: see below


@pytest.mark.parametrize("kind", GREEDY)
def test_plain_tensorflow_loads_the_same_greedy_actions(saved, kind):
    model = plain_model(saved(kind).model)
    actions = model.action(time_step(4)).action
    np.testing.assert_allclose(actions, saved(kind).first_actions, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("kind", GREEDY)
def test_eager_policy_loads_the_same_greedy_actions(saved, kind):
    policy = python_policy(saved(kind).model)
    actions = python_actions(policy)
    np.testing.assert_allclose(actions, saved(kind).first_actions, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("kind", GREEDY)
def test_checkpoint_updates_the_loaded_policy(saved, kind):
    assert np.abs(saved(kind).first_actions - saved(kind).last_actions).max() > 1e-2
    policy = policy_loader.load(saved(kind).model, saved(kind).checkpoint)
    actions = python_actions(policy)
    np.testing.assert_allclose(actions, saved(kind).last_actions, rtol=1e-6, atol=1e-6)
    assert policy.get_train_step() == STEP_CHECKPOINTED


@pytest.mark.parametrize("kind", GREEDY)
def test_materialized_model_stands_alone(saved, kind, tmp_path):
    material = str(tmp_path / "material")
    policy_loader.materialize_saved_model(saved(kind).model, saved(kind).checkpoint, material)
    model = tf.saved_model.load(material)
    actions = model.action(time_step(4)).action
    np.testing.assert_allclose(actions, saved(kind).last_actions, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("kind", GREEDY + STOCHASTIC)
def test_step_is_saved(saved, kind):
    policy = python_policy(saved(kind).model)
    assert policy.get_train_step() == STEP_SAVED


@pytest.mark.parametrize("kind", GREEDY + STOCHASTIC)
def test_specs_are_saved(saved, kind):
    policy = python_policy(saved(kind).model)
    assert tensor_spec.from_spec(policy.time_step_spec) == TIME_STEP
    action_spec = policy.action_spec
    assert (action_spec.shape, action_spec.dtype, action_spec.name) == ((2,), np.float32, "action")
    np.testing.assert_array_equal(action_spec.minimum, LOW)
    np.testing.assert_array_equal(action_spec.maximum, HIGH)
    assert policy.policy_state_spec == () and policy.info_spec == ()


@pytest.mark.parametrize("kind", GREEDY + STOCHASTIC)
def test_signature_has_the_names_of_the_specs(saved, kind):
    signature = plain_model(saved(kind).model).signatures["action"]
    inputs = {s.name: s.shape for s in signature.structured_input_signature[1].values()}
    scalars = {name: [None] for name in ("step_type", "reward", "discount")}
    assert inputs == {**scalars, "observation": [None, 3]}
    outputs = {name: spec.shape for name, spec in signature.structured_outputs.items()}
    assert outputs == {"action": [None, 2]}


@pytest.mark.parametrize("kind", GREEDY + STOCHASTIC)
@pytest.mark.parametrize("batch_size", [1, 64])
def test_loaded_policy_takes_any_batch_size_and_stays_in_bounds(saved, kind, batch_size):
    model = plain_model(saved(kind).model)
    actions = model.action(time_step(batch_size)).action
    assert actions.shape == [batch_size, 2]
    assert np.all(actions >= LOW) and np.all(actions <= HIGH)


@pytest.mark.parametrize("kind", STOCHASTIC)
def test_loaded_policy_draws_anew(saved, kind):
    model = plain_model(saved(kind).model)
    first, second = (model.action(time_step(4)).action.numpy() for _ in range(2))
    assert np.all(first != second)


@pytest.mark.parametrize("kind", STOCHASTIC)
def test_the_same_policy_collects(saved, kind):
    agent = saved(kind).agent
    assert agent.collect_policy is agent.policy


@pytest.mark.parametrize("kind", STOCHASTIC)
def test_loaded_policy_has_the_same_density(saved, kind):
    model = plain_model(saved(kind).model)
    density = model.distribution(time_step(4)).action
    log_prob = density.log_prob(some_actions())
    np.testing.assert_allclose(log_prob, saved(kind).first_log_prob, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("kind", GREEDY)
def test_greedy_action_is_the_mode(saved, kind):
    density = saved(kind).agent.policy.distribution(time_step(4)).action
    np.testing.assert_array_equal(saved(kind).last_actions, density.mode())


@pytest.mark.parametrize("kind", GREEDY)
def test_fixed_batch_size(kind, tmp_path):
    _, policy = policy_of(kind)
    policy_saver.PolicySaver(policy, batch_size=3).save(str(tmp_path / "model"))
    model = tf.saved_model.load(str(tmp_path / "model"))
    expected = policy.action(time_step(3)).action
    np.testing.assert_allclose(model.action(time_step(3)).action, expected, rtol=1e-6, atol=1e-6)
    with pytest.raises(ValueError, match="Could not find matching concrete function"):
        model.action(time_step(4))


@pytest.mark.parametrize("kind", GREEDY)
def test_registered_network_gives_the_same_mode(kind, tmp_path):
    agent, policy = policy_of(kind)
    network = agent._actor_network if kind == "fbrc greedy" else agent.behavior_network
    saver = policy_saver.PolicySaver(policy)
    saver.register_function("mode", lambda s: network(s, (), ())[0].mode(), OBSERVATION)
    saver.save(str(tmp_path / "model"))
    model = tf.saved_model.load(str(tmp_path / "model"))
    expected = policy.action(time_step(4)).action
    np.testing.assert_allclose(model.mode(time_step(4).observation), expected, rtol=1e-6, atol=1e-6)
