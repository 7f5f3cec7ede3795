"""What `TFAgent` promises, for FbrcAgent and BehaviorAgent.

TF-Agents' tf_agent_test tests the base class through an agent of its own, which has no actions and
no loss; its facts are restated here for our agents, and more that users of an agent rely on.
"""

import tempfile

import numpy as np
import pytest
import tensorflow as tf
from tf_agents.agents import test_util, tf_agent
from tf_agents.agents.sac import tanh_normal_projection_network as tanh_normal
from tf_agents.networks import actor_distribution_network, nest_map, sequential
from tf_agents.specs import array_spec, tensor_spec
from tf_agents.trajectories import time_step as ts
from tf_agents.trajectories import trajectory
from tf_agents.utils import test_utils

from fbrc_agent.agents import behavior as behavior_agent
from fbrc_agent.agents import fbrc as fbrc_agent
from fbrc_agent.networks import behavior_network
from tests.helpers import upstream_tests

tf_agent_test = upstream_tests.load("agents.tf_agent_test")

# Each method of upstream's test, and the test here that restates it or why there is none.
UPSTREAM = {
    "testBaseLossInfo": "tests the tuple LossInfo; there is no agent in it",
    "testChecksTrainSequenceLength": "test_refuses_another_sequence_length",
    "testDataContext": "test_data_context_has_the_specs",
    "testTrainIgnoresExtraFields": "test_ignores_extra_fields",
    "testLoss": "test_loss_and_train_return_the_same_structure",
    "testLossNotMatching": "tests that upstream's test_util finds an agent whose loss() and "
    "train() differ; ours do not",
    "testConvertToProperTimeStepSpecWhenCreatingAgent": "test_takes_array_specs",
}

OBSERVATION = tensor_spec.TensorSpec([3], tf.float32, "observation")
ACTION = tensor_spec.BoundedTensorSpec([2], tf.float32, [-1.0, 0.0], [1.0, 3.0], "action")
TIME_STEP = ts.time_step_spec(OBSERVATION)
BATCH = 6
KINDS = ["fbrc", "behavior"]


def create_critic(observation):
    flatten = [nest_map.NestFlatten(), tf.keras.layers.Concatenate()]
    layers = [tf.keras.layers.Dense(8), tf.keras.layers.Dense(1), tf.keras.layers.Reshape([])]
    return sequential.Sequential([*flatten, *layers], input_spec=(observation, ACTION))


def create(kind, time_step_spec=TIME_STEP, action_spec=ACTION, observation=OBSERVATION):
    """Returns an agent of that kind with tiny networks over `observation`."""
    encoder = {"fc_layer_params": (8,)}
    if isinstance(observation, dict):
        encoder["preprocessing_layers"] = {key: tf.keras.layers.Dense(4) for key in observation}
        encoder["preprocessing_combiner"] = tf.keras.layers.Concatenate()
    mu = behavior_network.MixtureBehaviorNetwork(observation, ACTION, **encoder)
    adam = [tf.keras.optimizers.Adam(1e-2) for _ in range(3)]
    counter = tf.Variable(0, dtype=tf.int64)
    if kind == "behavior":
        return behavior_agent.BehaviorAgent(
            time_step_spec, action_spec, mu, *adam[:2], train_step_counter=counter
        )
    return fbrc_agent.FbrcAgent(
        time_step_spec,
        action_spec,
        create_critic(observation),
        actor_distribution_network.ActorDistributionNetwork(
            observation,
            ACTION,
            continuous_projection_net=tanh_normal.TanhNormalProjectionNetwork,
            **encoder,
        ),
        *adam,
        behavior_network=mu,
        target_update_tau=0.1,
        train_step_counter=counter,
    )


def experience(length=2, seed=0):
    """Random trajectories, `[BATCH, length, ...]`."""
    generator = np.random.default_rng(seed)
    steps = tf.fill([BATCH, length], ts.StepType.MID)
    return trajectory.Trajectory(
        steps,
        tf.constant(generator.standard_normal((BATCH, length, 3)), tf.float32),
        tf.constant(generator.uniform([-1, 0], [1, 3], (BATCH, length, 2)), tf.float32),
        (),
        steps,
        tf.constant(generator.standard_normal((BATCH, length)), tf.float32),
        tf.ones([BATCH, length]),
    )


def all_values(agent):
    """Returns every variable of the agent and its optimizers, by its path in a checkpoint."""
    with tempfile.TemporaryDirectory() as directory:
        path = tf.train.Checkpoint(agent=agent).write(f"{directory}/checkpoint")
        reader = tf.train.load_checkpoint(path)
        keys = [key for key in reader.get_variable_to_shape_map() if key.startswith("agent/")]
        return {key: reader.get_tensor(key) for key in keys}


def changed(before, after):
    return {key for key in after if not np.array_equal(before.get(key), after[key])}


def test_every_upstream_method_is_restated_or_left_out():
    classes = (tf_agent_test.LossInfoTest, tf_agent_test.TFAgentTest, tf_agent_test.AgentSpecTest)
    assert set().union(*map(upstream_tests.methods, classes)) == set(UPSTREAM)
    restated = {name for name in UPSTREAM.values() if name.startswith("test_")}
    assert restated <= set(globals()) and len(restated) == 5


@pytest.mark.parametrize("kind", KINDS)
def test_refuses_another_sequence_length(kind):
    agent = create(kind)
    assert agent.train_sequence_length == 2
    for call in (agent.train, agent.loss):
        with pytest.raises(ValueError, match="The agent was configured"):
            call(experience(length=20))


@pytest.mark.parametrize("kind", KINDS)
def test_data_context_has_the_specs(kind):
    agent = create(kind)
    assert agent.time_step_spec == TIME_STEP and agent.action_spec == ACTION
    for context in (agent.data_context, agent.collect_data_context):
        assert context.time_step_spec == TIME_STEP
        assert context.action_spec == ACTION
        assert context.info_spec == ()


@pytest.mark.parametrize("kind", KINDS)
def test_trains_on_the_data_that_its_policy_collects(kind):
    spec = create(kind).collect_data_spec
    assert (spec.observation, spec.action, spec.policy_info) == (OBSERVATION, ACTION, ())
    assert (spec.reward, spec.discount) == (TIME_STEP.reward, TIME_STEP.discount)
    assert spec.step_type.dtype == spec.next_step_type.dtype == tf.int32
    assert create(kind).training_data_spec == spec
    assert create(kind).collect_policy.trajectory_spec == spec


@pytest.mark.parametrize("kind", KINDS)
def test_ignores_extra_fields(kind):
    tf.keras.utils.set_random_seed(0)
    spec = {"position": OBSERVATION, "velocity": OBSERVATION}
    agent = create(kind, ts.time_step_spec(spec), observation=spec)
    given = experience()
    observation = {"position": given.observation, "velocity": 2.0 * given.observation}
    losses = []
    for extra in ({}, {"ignored": tf.ones([BATCH, 2, 1])}):
        tf.random.set_seed(1)
        losses.append(agent.loss(given._replace(observation={**observation, **extra})).loss)
    assert losses[0] == losses[1]
    agent.train(given._replace(observation={**observation, **extra}))


@pytest.mark.parametrize("kind", KINDS)
def test_loss_and_train_return_the_same_structure(kind):
    # Their values differ: train() takes the actor's loss after the critic's step, other samples.
    test_util.test_loss_and_train_output(
        test=test_utils.TestCase(),
        expect_equal_loss_values=False,
        agent=create(kind),
        experience=experience(),
        weights=tf.ones([BATCH]),
    )


@pytest.mark.parametrize("kind", KINDS)
def test_takes_array_specs(kind):
    observation = array_spec.ArraySpec([3], np.float32, "observation")
    action = array_spec.BoundedArraySpec([2], np.float32, [-1, 0], [1, 3], "action")
    agent = create(kind, ts.time_step_spec(observation), action)
    assert isinstance(agent.time_step_spec.observation, tf.TypeSpec)
    assert agent.action_spec == ACTION
    agent.train(experience())


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "wrong",
    [
        {"observation": tf.ones([BATCH, 2, 4])},
        {"observation": {"position": tf.ones([BATCH, 2, 3])}},
        {"action": tf.ones([BATCH, 2, 3])},
        {"reward": tf.ones([BATCH, 2], tf.float64)},
        {"policy_info": {"log_probability": ()}, "discount": tf.ones([BATCH, 2, 1])},
    ],
    ids=["shape", "nest", "action", "dtype", "discount"],
)
def test_refuses_experience_of_another_structure(kind, wrong):
    agent = create(kind)
    before = all_values(agent)
    for call in (agent.train, agent.loss):
        with pytest.raises((ValueError, TypeError)):
            call(experience()._replace(**wrong))
    assert not changed(before, all_values(agent))


@pytest.mark.parametrize("kind", KINDS)
def test_train_counts_one_step_and_loss_changes_nothing(kind):
    agent = create(kind)
    agent.initialize()
    before = all_values(agent)
    agent.loss(experience())
    assert not changed(before, all_values(agent))
    for step in (1, 2):
        agent.train(experience())
        assert agent.train_step_counter.numpy() == step


@pytest.mark.parametrize("kind", KINDS)
def test_training_moves_the_policy(kind):
    agent = create(kind)
    before = [v.numpy() for v in agent.policy.variables()]
    agent.train(experience())
    assert all(not np.array_equal(b, v) for b, v in zip(before, agent.policy.variables()))


@pytest.mark.parametrize("call", ["train", "loss"])
def test_total_loss_is_the_sum(call):
    info = getattr(create("fbrc"), call)(experience())
    assert isinstance(info, tf_agent.LossInfo)
    total = info.extra.critic_loss + info.extra.actor_loss + info.extra.alpha_loss
    np.testing.assert_allclose(info.loss, total, rtol=1e-6)


@pytest.mark.parametrize("call", ["train", "loss"])
def test_loss_of_the_behavior_agent_is_that_of_mu(call):
    info = getattr(create("behavior"), call)(experience())
    assert isinstance(info, tf_agent.LossInfo)
    np.testing.assert_array_equal(info.loss, info.extra.behavior_loss)


@pytest.mark.parametrize("kind", KINDS)
def test_initialize_only_copies_the_critics_into_their_targets(kind):
    agent = create(kind)
    agent.initialize()
    agent.train(experience())
    before = all_values(agent)
    agent.initialize()
    once = all_values(agent)
    agent.initialize()
    assert not changed(once, all_values(agent))
    moved = {key.split("/")[1] for key in changed(before, once)}
    targets = {"_target_critic_network_1", "_target_critic_network_2"}
    assert moved == (targets if kind == "fbrc" else set())
    if kind == "fbrc":
        for i in (1, 2):
            net, target = f"agent/_critic_network_{i}", f"agent/_target_critic_network_{i}"
            pairs = [(key.replace(target, net), key) for key in once if key.startswith(target)]
            assert pairs and all(np.array_equal(once[a], once[b]) for a, b in pairs)


@pytest.mark.parametrize("kind", KINDS)
def test_preprocesses_and_post_processes_nothing(kind):
    agent = create(kind)
    given = experience()
    assert agent.preprocess_sequence(given) is given
    assert agent.post_process_policy() is agent.policy


@pytest.mark.parametrize("kind", KINDS)
def test_checkpoint_holds_everything(kind, tmp_path):
    """A restored agent goes on exactly as the saved one."""
    agent, other = create(kind), create(kind)
    for net in (agent, other):
        net.initialize()
    for seed in range(3):
        agent.train(experience(seed=seed))
    path = tf.train.Checkpoint(agent=agent).write(str(tmp_path / "checkpoint"))
    status = tf.train.Checkpoint(agent=other).read(path)
    results = []
    for each in (agent, other):
        tf.random.set_seed(5)
        results.append((each.train(experience(seed=9)), all_values(each)))
    status.assert_consumed()  # with the optimizer's slots, which the first step makes
    (info, values), (other_info, other_values) = results
    tf.nest.map_structure(np.testing.assert_array_equal, info, other_info)
    assert values.keys() == other_values.keys() and not changed(values, other_values)
    saved = " ".join(values)
    for part in ("_behavior_network", "_log_alpha", "_train_step_counter", "OPTIMIZER_SLOT"):
        assert part in saved, f"{part} is not in the checkpoint"
