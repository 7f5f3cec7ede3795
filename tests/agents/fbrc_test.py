"""FbrcAgent: the identity with SacAgent, what it trains, what it saves, what it refuses."""

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_probability as tfp
from tf_agents.agents.ddpg import critic_network as ddpg_critic
from tf_agents.agents.sac import sac_agent
from tf_agents.networks import network
from tf_agents.specs import tensor_spec
from tf_agents.trajectories import time_step as ts
from tf_agents.trajectories import trajectory

from fbrc_agent.agents import fbrc as fbrc_agent
from fbrc_agent.networks import actor_network, behavior_network, critic_network
from tests.helpers import same_noise

OBSERVATION = tensor_spec.TensorSpec([4], tf.float32, "observation")
ACTION = tensor_spec.BoundedTensorSpec([2], tf.float32, -0.5, 0.5, "action")
TIME_STEP = ts.time_step_spec(OBSERVATION)
BATCH = 16


class UnitDensity(network.Network):
    """The uniform density on a box of volume 1: log mu = 0 everywhere."""

    def __init__(self, input_tensor_spec, name="UnitDensity"):
        super().__init__(input_tensor_spec, state_spec=(), name=name)

    def call(self, observation, step_type=(), network_state=(), training=False):
        bound = tf.fill([tf.shape(observation)[0], 2], 0.5)
        return tfp.distributions.Independent(
            tfp.distributions.Uniform(-bound, bound), 1
        ), network_state


def offset_network():
    return critic_network.create_offset_network((OBSERVATION, ACTION), fc_layer_params=(16, 16))


def mixture():
    return behavior_network.MixtureBehaviorNetwork(OBSERVATION, ACTION, fc_layer_params=(16,))


def arguments():
    return {
        "actor_network": actor_network.create_actor_network(
            OBSERVATION, ACTION, fc_layer_params=(16, 16)
        ),
        "actor_optimizer": tf.keras.optimizers.Adam(1e-2),
        "critic_optimizer": tf.keras.optimizers.Adam(1e-2),
        "alpha_optimizer": tf.keras.optimizers.Adam(1e-2),
        "gamma": 0.99,
        "target_update_tau": 0.1,
        "train_step_counter": tf.Variable(0, dtype=tf.int64),
    }


def fbrc(behavior=None, **changes):
    behavior = behavior or mixture()
    given = {**arguments(), "critic_network": offset_network(), **changes}
    agent = fbrc_agent.FbrcAgent(TIME_STEP, ACTION, behavior_network=behavior, **given)
    agent.initialize()
    return agent


def batch(seed=0):
    generator = np.random.default_rng(seed)

    def normal(*shape):
        return tf.constant(generator.standard_normal(shape), tf.float32)

    mid = tf.fill([BATCH, 2], ts.StepType.MID)
    return trajectory.Trajectory(
        mid,
        normal(BATCH, 2, 4),
        tf.constant(generator.uniform(-0.5, 0.5, (BATCH, 2, 2)), tf.float32),
        (),
        mid,
        normal(BATCH, 2),
        tf.ones([BATCH, 2]),
    )


def fbrc_and_sac():
    """Both agents with the same weights; the first one with nothing of Fisher-BRC."""
    fisher = fbrc(
        UnitDensity(OBSERVATION), gradient_penalty_weight=0.0, include_critic_entropy_term=True
    )
    sac = sac_agent.SacAgent(TIME_STEP, ACTION, critic_network=offset_network(), **arguments())
    sac.initialize()
    same_noise.share_weights(fisher, sac)
    return fisher, sac


@pytest.mark.parametrize("compiled", [False, True], ids=["eager", "tf_function"])
def test_with_unit_density_and_no_penalty_it_is_sac(compiled):
    noise = same_noise.standard_normal(10, BATCH, 2)
    batches = [batch(seed) for seed in range(10)]
    same_noise.assert_equal_training(*fbrc_and_sac(), batches, noise, compiled)


def test_draws_the_actions_that_sac_draws():
    losses = []
    for agent in fbrc_and_sac():
        tf.random.set_seed(7)  # eager ops then draw the same numbers in the same order
        losses.append([agent.train(batch(seed)).loss for seed in range(3)])
    np.testing.assert_allclose(*losses, rtol=1e-6)


@pytest.mark.parametrize(
    "change",
    [
        {"gradient_penalty_weight": 1000.0},  # gradients start near 0
        {"reward_bonus": 1.0},
        {"include_critic_entropy_term": False},
    ],
)
def test_each_argument_alone_leaves_sac(change):
    base = {"gradient_penalty_weight": 0.0, "include_critic_entropy_term": True}
    losses = []
    for arguments_ in (base, {**base, **change}):
        tf.keras.utils.set_random_seed(3)
        agent = fbrc(UnitDensity(OBSERVATION), **arguments_)
        losses.append(float(agent.train(batch()).extra.critic_loss))
    assert abs(losses[0] - losses[1]) > 1e-4


def test_training_leaves_the_behavior_network_alone():
    behavior = mixture()
    agent = fbrc(behavior)
    before = [v.numpy() for v in behavior.variables]
    offsets = [v.numpy() for v in agent._critic_network_1.variables]
    for seed in range(3):
        agent.train(batch(seed))
    assert all(np.array_equal(b, v) for b, v in zip(before, behavior.variables))
    assert not all(np.array_equal(b, v) for b, v in zip(offsets, agent._critic_network_1.variables))


def test_checkpoint_holds_the_behavior_network(tmp_path):
    behavior = mixture()
    path = tf.train.Checkpoint(agent=fbrc(behavior)).write(str(tmp_path / "checkpoint"))
    other = mixture()
    tf.train.Checkpoint(agent=fbrc(other)).read(path).assert_consumed()
    for saved, restored in zip(behavior.variables, other.variables):
        np.testing.assert_array_equal(saved, restored)


def test_one_evaluation_of_mu_serves_both_critics(monkeypatch):
    agent, passes, log_mus = fbrc(seed=3), [], []
    call = behavior_network.MixtureBehaviorNetwork.call
    log_prob = behavior_network.SquashedMixture._log_prob

    def counted_call(self, observation, *args, **kwargs):
        passes.append(observation)
        return call(self, observation, *args, **kwargs)

    def counted_log_prob(self, value):
        log_mus.append(value)
        return log_prob(self, value)

    monkeypatch.setattr(behavior_network.MixtureBehaviorNetwork, "call", counted_call)
    monkeypatch.setattr(behavior_network.SquashedMixture, "_log_prob", counted_log_prob)
    agent.train(batch())
    assert len(passes) == 2  # At s and at s'.
    assert len(log_mus) == 3  # Of the data's actions, of the target's and of the actor's.


def test_first_and_second_critic_and_targets_share_nothing_but_mu():
    agent = fbrc()
    first, second = agent._critic_network_1, agent._critic_network_2
    kernels = [v for v in first.variables if "kernel" in v.name]
    others = [v for v in second.variables if "kernel" in v.name]
    assert all(not np.allclose(k, t) for k, t in zip(kernels, others))
    ids = {id(v) for net in (first, second) for v in net.variables}
    targets = agent._target_critic_network_1, agent._target_critic_network_2
    assert not ids & {id(v) for net in targets for v in net.variables}
    assert {id(net.behavior_network) for net in (first, second, *targets)} == {
        id(agent.behavior_network)
    }
    for net, target in zip((first, second), targets):
        for v, t in zip(net.variables, target.variables):
            np.testing.assert_array_equal(v, t)


def test_default_target_entropy_is_sacs_and_counter_moves_by_one():
    agent = fbrc()
    assert agent._target_entropy == -1.0  # -|A| / 2 with |A| = 2
    agent.train(batch())
    assert int(agent.train_step_counter) == 1


def test_loss_info_has_five_fields_in_order():
    info = fbrc().train(batch())
    assert info.extra._fields == (
        "critic_loss",
        "actor_loss",
        "alpha_loss",
        "gradient_penalty",
        "behavior_log_prob",
    )
    assert all(value.shape == () for value in info.extra)
    total = info.extra.critic_loss + info.extra.actor_loss + info.extra.alpha_loss
    np.testing.assert_allclose(info.loss, total, rtol=1e-6)


def test_zero_weights_give_zero_critic_and_actor_loss():
    agent = fbrc()
    zero = tf.zeros([BATCH])
    info = agent.train(batch(), weights=zero)
    np.testing.assert_array_equal([info.extra.critic_loss, info.extra.actor_loss], [0.0, 0.0])


def test_regularization_of_the_offset_enters_the_critic_loss():
    layer = tf.keras.layers.Dense(1, kernel_regularizer=tf.keras.regularizers.L2(10.0))
    net = ddpg_critic.CriticNetwork((OBSERVATION, ACTION), last_layer=layer)
    second = ddpg_critic.CriticNetwork((OBSERVATION, ACTION))
    agent = fbrc(
        critic_network=net,
        critic_network_2=second,
        target_critic_network=ddpg_critic.CriticNetwork((OBSERVATION, ACTION)),
        target_critic_network_2=ddpg_critic.CriticNetwork((OBSERVATION, ACTION)),
    )
    info = agent.loss(batch(), weights=tf.zeros([BATCH]))
    expected = 0.5 * 10.0 * np.sum(layer.kernel.numpy() ** 2)  # critic_loss_weight is SAC's 0.5
    np.testing.assert_allclose(info.extra.critic_loss, expected, rtol=1e-6)


def test_diagnostics_of_a_linear_offset_by_hand():
    def linear():
        return ddpg_critic.CriticNetwork((OBSERVATION, ACTION))

    agent = fbrc(UnitDensity(OBSERVATION), critic_network=linear())
    for net in agent._learned:
        kernel, bias = net.variables
        kernel.assign([[0.0]] * 4 + [[3.0], [4.0]])  # O = 3 a_0 + 4 a_1
        bias.assign([0.0])
    experience = batch()
    measured = agent.diagnostics(experience)
    np.testing.assert_allclose(measured["offset_gradient_norm"], 5.0, rtol=1e-6)
    np.testing.assert_allclose(measured["behavior_gradient_norm"], 0.0, atol=1e-6)
    q_data = np.mean(experience.action.numpy()[:, 0] @ np.array([3.0, 4.0]))
    np.testing.assert_allclose(measured["q_data"], q_data, rtol=1e-5)
    info = agent.train(experience)
    np.testing.assert_allclose(info.extra.gradient_penalty, 50.0, rtol=1e-6)  # 25 for each critic


def test_refuses_a_behavior_of_another_action_size():
    other = tensor_spec.BoundedTensorSpec([3], tf.float32, -1, 1)
    with pytest.raises(ValueError, match=r"event_shape=\[3\].*shape \(2,\)"):
        fbrc(behavior_network.MixtureBehaviorNetwork(OBSERVATION, other))


def test_refuses_a_critic_wrapped_around_another_behavior():
    wrapped = critic_network.BehaviorRegularizedCriticNetwork(offset_network(), mixture())
    with pytest.raises(ValueError, match="give both the same object"):
        fbrc(critic_network=wrapped)


def test_takes_a_critic_that_is_wrapped_already():
    behavior = mixture()
    wrapped = critic_network.BehaviorRegularizedCriticNetwork(offset_network(), behavior)
    agent = fbrc(behavior, critic_network=wrapped)
    assert agent._critic_network_1 is wrapped


def two_alike(**changes):
    """Two agents of one seed with the same weights; the second one with `changes`."""
    behavior = mixture()
    agents = fbrc(behavior, seed=3), fbrc(behavior, **{"seed": 3, **changes})
    same_noise.share_weights(*agents)
    return agents


def test_a_seed_and_a_step_fix_what_training_does():
    agents = two_alike()
    for step in range(3):
        losses = [agent.train(batch(step)).loss.numpy() for agent in agents]
        assert losses[0] == losses[1]
    for variables in zip(*map(same_noise.all_variables, agents)):
        np.testing.assert_array_equal(*variables)


def test_another_seed_or_step_draws_other_actions():
    agents = two_alike(train_step_counter=tf.Variable(1, dtype=tf.int64))
    first, later = (agent.loss(batch()).extra.critic_loss.numpy() for agent in agents)
    assert first != later
    first, other = (agent.loss(batch()).extra.critic_loss.numpy() for agent in two_alike(seed=4))
    assert first != other


def test_each_draw_of_a_step_has_a_number_of_its_own():
    agent, numbers = fbrc(seed=3), []
    sample = agent._sample
    agent._sample = lambda policy, draw: numbers.append(draw) or sample(policy, draw)
    agent.loss(batch())
    agent.diagnostics(batch())
    assert len(numbers) == len(set(numbers)) == 5


def fix_noise(agent):
    """Gives each draw a noise of its own: XLA's generator is another one."""
    noise = np.random.default_rng(0).standard_normal((5, BATCH, 2)).astype(np.float32)

    def sample(policy, draw):
        normal = policy.input_distribution
        u = normal.mean() + normal.stddev() * noise[draw]
        actions = policy._squashed_distribution.bijector.forward(u)
        return actions, policy.log_prob(actions)

    agent._sample = sample


def test_jit_compiled_it_does_the_same_and_writes_summaries(tmp_path):
    plain, jitted = two_alike(jit_compile=True)
    fix_noise(plain)
    fix_noise(jitted)
    writer = tf.summary.create_file_writer(str(tmp_path))
    train = tf.function(jitted.train)
    with writer.as_default(), tf.summary.record_if(True):
        for step in range(3):
            loss, expected = train(batch(step)).loss, plain.train(batch(step)).loss
            np.testing.assert_allclose(loss, expected, rtol=1e-5)
    writer.close()
    for variables in zip(*map(same_noise.all_variables, (jitted, plain))):
        np.testing.assert_allclose(*variables, rtol=1e-4, atol=1e-5)
    assert "Losses/critic_loss" in "".join(
        value.tag
        for path in tmp_path.iterdir()
        for event in tf.compat.v1.train.summary_iterator(str(path))
        for value in event.summary.value
    )


def test_jit_compiled_it_stops_at_a_loss_that_is_not_finite():
    agent = fbrc(seed=3, jit_compile=True)
    agent._critic_network_1.trainable_variables[0].assign(tf.fill([6, 16], np.nan))
    with pytest.raises(tf.errors.InvalidArgumentError, match="Critic loss is inf or nan"):
        tf.function(agent.train)(batch())


@pytest.mark.parametrize(
    "change, sentence",
    [
        ({"debug_summaries": True}, "so is debug_summaries"),
        ({"actor_optimizer": tf.compat.v1.train.AdamOptimizer()}, "actor_optimizer is a Adam"),
    ],
)
def test_refuses_to_compile_what_xla_cannot(change, sentence):
    with pytest.raises(ValueError, match=sentence):
        fbrc(jit_compile=True, **change)


def test_refuses_to_compile_what_exchanges_gradients():
    with tf.distribute.MirroredStrategy(["CPU:0"]).scope():
        with pytest.raises(ValueError, match="under a MirroredStrategy, .* give jit_compile=False"):
            fbrc(jit_compile=True)
