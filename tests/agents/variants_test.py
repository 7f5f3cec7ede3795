"""The variants of FbrcAgent: where the penalty is taken, and critics without the offset."""

import itertools

import numpy as np
import pytest
import tensorflow as tf
from tf_agents.agents.ddpg import critic_network as ddpg_critic
from tf_agents.networks import network

from fbrc_agent.agents import fbrc as fbrc_agent
from fbrc_agent.networks import critic_network
from tests.agents import agent_losses_test as losses
from tests.agents import fbrc_test as agents
from tests.agents import networks_test as networks
from tests.helpers import numpy_reference as reference
from tests.helpers import same_noise

REGULARIZATIONS = ["offset", "gradient_penalty", "fisher"]
WITHOUT_OFFSET = REGULARIZATIONS[1:]


def slope_of_log_mu(world, observations, actions, step=1e-6):
    """Returns grad_a log mu(a|s), [B, A], by central differences."""
    shifts = step * np.eye(losses.ACTIONS)
    values = [
        world.reference_log_mu(observations, actions + shift)
        - world.reference_log_mu(observations, actions - shift)
        for shift in shifts
    ]
    return np.stack(values, axis=1) / (2.0 * step)


@losses.both_dtypes
@pytest.mark.parametrize(
    "regularization, penalty_actions",
    list(itertools.product(REGULARIZATIONS, ["policy", "data"])),
)
def test_critic_loss_and_gradient(dtype, regularization, penalty_actions):
    world = losses.World(dtype, regularization=regularization, penalty_actions=penalty_actions)
    agent = world.agent
    networks_ = [agent._critic_network_1, agent._critic_network_2]
    with tf.GradientTape() as tape:
        loss = agent.loss(world.experience()).extra.critic_loss
    critics = [losses.weights(net) for net in networks_]
    targets = [
        losses.weights(net)
        for net in (agent._target_critic_network_1, agent._target_critic_network_2)
    ]
    s, s_next = world.observations[:, 0], world.observations[:, 1]
    a, next_actions = world.actions[:, 0], world.samples[0]
    penalized = a if penalty_actions == "data" else world.samples[1]
    has_offset = regularization == "offset"
    value = np.minimum(*[reference.offset(t, s_next, next_actions) for t in targets])
    value += has_offset * world.reference_log_mu(s_next, next_actions)
    target = losses.SCALE * world.rewards[:, 0] + losses.BONUS
    target += losses.GAMMA * world.discounts[:, 0] * value
    log_mu = has_offset * world.reference_log_mu(s, a)
    goal = (regularization == "fisher") * slope_of_log_mu(world, s, penalized)

    def expected_loss():
        total = 0.0
        for critic in critics:
            total += np.mean((target - reference.offset(critic, s, a) - log_mu) ** 2)
            slope = reference.offset_action_gradient(critic, s, penalized) - goal
            total += losses.PENALTY_WEIGHT * np.mean(np.sum(slope**2, axis=1))
        return total

    np.testing.assert_allclose(loss.numpy(), expected_loss(), rtol=losses.TOLERANCE[dtype])
    expected = reference.numerical_gradient(expected_loss, critics[0] + critics[1])
    variables = [v for net in networks_ for v in net.variables]
    losses.assert_gradients(tape.gradient(loss, variables), expected, dtype)


class Disguised(network.Network):
    """O + log mu as a network like any other: the agent cannot tell."""

    def __init__(self, critic, name="Disguised"):
        super().__init__(critic.input_tensor_spec, critic.state_spec, name)
        self._critic = critic

    def copy(self, name):
        return Disguised(self._critic.copy(name=name), name)

    def call(self, inputs, step_type=(), network_state=(), training=False):
        return self._critic(inputs, step_type, network_state, training)


def agent_with_descent(kind, behavior, **changes):
    """An agent without Adam, which steps as far on the rounding of a gradient as on a gradient."""
    names = ("actor_optimizer", "critic_optimizer", "alpha_optimizer")
    optimizers = {name: tf.keras.optimizers.SGD(1e-2) for name in names}
    return networks.make_agent(kind, behavior, seed=3, **{**optimizers, **changes})


@pytest.mark.parametrize(
    "name, penalty_actions",
    [("CriticNetwork", "data"), ("dict action", "policy"), ("recurrent", "policy")],
)
def test_fisher_divergence_of_offset_plus_log_mu_trains_as_the_offset(name, penalty_actions):
    tf.keras.utils.set_random_seed(0)
    kind = networks.KINDS[name]
    behavior = networks.make_behavior(kind)
    offset = agent_with_descent(kind, behavior, penalty_actions=penalty_actions)
    for variable in same_noise.all_variables(offset):
        variable.assign(0.5 * tf.random.normal(variable.shape))
    critic = critic_network.BehaviorRegularizedCriticNetwork(
        kind.critic((kind.observation, kind.action)), behavior
    )
    fisher = agent_with_descent(
        kind,
        behavior,
        penalty_actions=penalty_actions,
        critic_network=Disguised(critic),
        regularization="fisher",
    )
    same_noise.share_weights(offset, fisher)
    for step in range(2):
        batch = networks.experience(kind, seed=step)
        infos = [agent.train(batch).extra for agent in (offset, fisher)]
        assert infos[0].gradient_penalty > 1e-3
        np.testing.assert_allclose(*infos, rtol=1e-4)
    for variables in zip(*map(same_noise.all_variables, (offset, fisher))):
        np.testing.assert_allclose(*variables, rtol=1e-4, atol=1e-5)


def linear_agent(**changes):
    """An agent whose networks are both 3 a_0 + 4 a_1."""
    net = ddpg_critic.CriticNetwork((agents.OBSERVATION, agents.ACTION))
    agent = agents.fbrc(critic_network=net, seed=3, **changes)
    for critic in (agent._critic_network_1, agent._critic_network_2):
        kernel, bias = critic.variables
        kernel.assign([[0.0]] * 4 + [[3.0], [4.0]])
        bias.assign([0.0])
    return agent


@pytest.mark.parametrize("regularization", ["offset", "gradient_penalty"])
@pytest.mark.parametrize("penalty_actions", ["policy", "data"])
def test_slope_of_a_linear_network_is_the_same_everywhere(regularization, penalty_actions):
    agent = linear_agent(regularization=regularization, penalty_actions=penalty_actions)
    info = agent.train(agents.batch())
    np.testing.assert_allclose(info.extra.gradient_penalty, 50.0, rtol=1e-6)  # 25 for each critic


@pytest.mark.parametrize("regularization", REGULARIZATIONS)
def test_diagnostics_and_critics_called_from_outside_give_the_q_that_is_trained(regularization):
    agent, batch = linear_agent(regularization=regularization), agents.batch()
    observations, actions = batch.observation[:, 0], batch.action[:, 0]
    expected = actions.numpy() @ np.array([3.0, 4.0])
    if regularization == "offset":
        expected += agent.behavior_network(observations)[0].log_prob(actions).numpy()
    diagnostics = agent.diagnostics(batch)
    np.testing.assert_allclose(diagnostics["q_data"], expected.mean(), rtol=1e-5)
    np.testing.assert_allclose(diagnostics["offset_gradient_norm"], 5.0, rtol=1e-6)
    assert diagnostics["behavior_gradient_norm"] > 0
    for critic in (agent._critic_network_1, agent._critic_network_2):
        np.testing.assert_allclose(critic((observations, actions))[0], expected, rtol=1e-4)


@pytest.mark.parametrize("regularization", WITHOUT_OFFSET)
def test_without_the_offset_a_critic_that_has_one_is_refused(regularization):
    behavior = agents.mixture()
    wrapped = critic_network.BehaviorRegularizedCriticNetwork(agents.offset_network(), behavior)
    with pytest.raises(ValueError, match="^critic_network '.*' is O .* the network that it wraps"):
        agents.fbrc(behavior, critic_network=wrapped, regularization=regularization)


@pytest.mark.parametrize(
    "argument, value, wanted",
    [
        ("penalty_actions", "both", "'policy' or 'data'"),
        ("regularization", None, "'offset', 'gradient_penalty' or 'fisher'"),
        ("td_errors_loss_fn", 3, r"a function of \(target, prediction\), such as .*difference"),
    ],
)
def test_wrong_values_are_refused_before_anything_is_built(argument, value, wanted):
    nothing = [None] * 6
    with pytest.raises(ValueError, match=rf"^{argument} is {value!r}; it must be {wanted}\.\n"):
        fbrc_agent.FbrcAgent(agents.TIME_STEP, agents.ACTION, *nothing, **{argument: value})


@pytest.mark.parametrize("regularization", REGULARIZATIONS)
def test_values_are_those_of_the_numpy_reference(regularization):
    world = losses.World(tf.float64, regularization=regularization)
    agent = world.agent
    s, a = world.observations[:, 0], world.actions[:, 0]
    values = agent.values(tf.constant(s, tf.float64), tf.constant(a, tf.float64))
    log_mu = world.reference_log_mu(s, a)
    outputs = [
        reference.offset(losses.weights(net), s, a)
        for net in (agent._critic_network_1, agent._critic_network_2)
    ]
    q = np.minimum(*outputs) + (regularization == "offset") * log_mu
    expected = {"q": q, "log_mu": log_mu, "offset": q - log_mu}
    assert set(values) == set(expected)
    for name, value in values.items():
        np.testing.assert_allclose(value, expected[name], rtol=1e-5, atol=1e-9)
