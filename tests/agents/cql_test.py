"""CqlAgent against NumPy, and against TF-Agents' `CqlSacAgent` where that one is right."""

import numpy as np
import pytest
import tensorflow as tf
from tf_agents.agents.cql import cql_sac_agent
from tf_agents.agents.ddpg import critic_network
from tf_agents.specs import tensor_spec
from tf_agents.trajectories import time_step as ts
from tf_agents.trajectories import trajectory

from fbrc_agent.agents import cql
from fbrc_agent.networks import actor_network
from tests.helpers import numpy_reference as reference

BATCH, SAMPLES, LOW, HIGH = 6, 4, np.array([-1.0, -2.0]), np.array([1.0, 3.0])
OBSERVATION = tf.TensorSpec([3], tf.float32)
TIME_STEP = ts.time_step_spec(OBSERVATION)
SCALAR_BOUNDS = tensor_spec.BoundedTensorSpec([2], tf.float32, -1.0, 1.0)
ARRAY_BOUNDS = tensor_spec.BoundedTensorSpec([2], tf.float32, LOW, HIGH)


def networks(action_spec):
    tf.keras.utils.set_random_seed(1)
    critic = critic_network.CriticNetwork((OBSERVATION, action_spec), joint_fc_layer_params=(8, 7))
    actor = actor_network.create_actor_network(OBSERVATION, action_spec, (8,))
    return critic, actor


def make(action_spec=ARRAY_BOUNDS, **options):
    optimizers = [tf.keras.optimizers.legacy.Adam(1e-2) for _ in range(3)]
    names = ("actor_optimizer", "critic_optimizer", "alpha_optimizer")
    options = {"num_action_samples": SAMPLES, "gamma": 0.9, "seed": 5, **options}
    counter = tf.Variable(0, dtype=tf.int64)
    agent = cql.CqlAgent(
        TIME_STEP,
        action_spec,
        *networks(action_spec),
        train_step_counter=counter,
        **dict(zip(names, optimizers)),
        **options,
    )
    agent.initialize()
    scramble(agent)
    return agent


def scramble(agent):
    generator = np.random.default_rng(2)
    for net in (agent._actor_network, agent._critic_network_1, agent._critic_network_2):
        for variable in net.variables:
            variable.assign(0.4 * generator.standard_normal(variable.shape))


def experience(spec=ARRAY_BOUNDS, seed=3):
    generator = np.random.default_rng(seed)
    low, high = np.broadcast_to(spec.minimum, [2]), np.broadcast_to(spec.maximum, [2])
    mid = tf.fill([BATCH, 2], ts.StepType.MID)
    return trajectory.Trajectory(
        mid,
        tf.constant(generator.normal(size=(BATCH, 2, 3)), tf.float32),
        tf.constant(generator.uniform(low, high, (BATCH, 2, 2)) * 0.9, tf.float32),
        (),
        mid,
        tf.constant(generator.normal(size=(BATCH, 2)), tf.float32),
        tf.ones([BATCH, 2]),
    )


def q_values(agent, observations, actions):
    nets = (agent._critic_network_1, agent._critic_network_2)
    parameters = [[w.astype(np.float64) for w in net.get_weights()] for net in nets]
    return [reference.offset(weights, observations, actions) for weights in parameters]


def record(agent):
    """Returns what the agent draws: by the number of the draw, actions and log densities."""
    drawn, sample, uniform = {}, agent._sample, agent._uniform

    def recorded(policy, draw, sample_shape=None):
        drawn[draw] = sample(policy, draw, sample_shape)
        return drawn[draw]

    def recorded_uniform(batch_shape):
        drawn[cql._UNIFORM] = uniform(batch_shape)
        return drawn[cql._UNIFORM]

    agent._sample, agent._uniform = recorded, recorded_uniform
    return drawn


@pytest.mark.parametrize("include_next_actions", [True, False])
@pytest.mark.parametrize("temperature", [1.0, 3.0])
def test_gap_is_that_of_numpy(include_next_actions, temperature):
    agent = make(include_next_actions=include_next_actions, softmax_temperature=temperature)
    drawn = record(agent)
    given = experience()
    extra = agent.loss(given).extra
    sources = [cql._UNIFORM, 1] + [cql._NEXT] * include_next_actions
    observations = given.observation[:, 0].numpy().astype(np.float64)
    terms = [[], []]
    for source in sources:
        actions, log_q = (part.numpy().astype(np.float64) for part in drawn[source])
        assert actions.shape == (SAMPLES, BATCH, 2)
        if source == cql._UNIFORM:
            np.testing.assert_allclose(log_q, -np.log(2.0 * 5.0), rtol=1e-6)
            assert (actions >= LOW).all() and (actions <= HIGH).all()
        for k in range(SAMPLES):
            for critic, q in enumerate(q_values(agent, observations, actions[k])):
                terms[critic].append(temperature * q - log_q[k])
    log_z = [reference.log_sum_exp(np.stack(each, axis=-1)) / temperature for each in terms]
    data = q_values(agent, observations, given.action[:, 0].numpy().astype(np.float64))
    expected = np.mean([z - q for z, q in zip(log_z, data)])
    np.testing.assert_allclose(extra.cql_gap, expected, rtol=1e-5)


def test_critic_loss_is_the_td_error_and_the_weighted_gap():
    losses = [
        make(cql_weight=weight, critic_loss_weight=1.0).loss(experience()).extra
        for weight in (0.0, 2.0)
    ]
    difference = losses[1].critic_loss - losses[0].critic_loss
    np.testing.assert_allclose(difference, 2 * 2.0 * losses[1].cql_gap, rtol=1e-5)


def test_gap_is_that_of_tf_agents_where_bounds_are_scalars(monkeypatch):
    """On the same actions; with arrays of bounds its uniform density is another one."""
    for spec in (SCALAR_BOUNDS, ARRAY_BOUNDS):
        ours = make(spec, include_next_actions=False)
        drawn = record(ours)
        given = experience(spec)
        gap = ours.loss(given).extra.cql_gap
        theirs = cql_sac_agent.CqlSacAgent(
            TIME_STEP,
            spec,
            *networks(spec),
            *[tf.keras.optimizers.legacy.Adam() for _ in range(3)],
            cql_alpha=1.0,
            num_cql_samples=SAMPLES,
            include_critic_entropy_term=False,
            use_lagrange_cql_alpha=False,
        )
        scramble(theirs)
        of_policy, of_box = ([tf.transpose(a, [1, 0, 2]) for a in (drawn[n][0],)] for n in (1, 5))
        log_pi = tf.transpose(drawn[1][1])
        monkeypatch.setattr(
            theirs,
            "_sample_and_transpose_actions_and_log_probs",
            lambda *args, a=of_policy[0], p=log_pi, **kwargs: (a, p),
        )
        flat = tf.reshape(of_box[0], [-1, 2])
        monkeypatch.setattr(tf.random, "uniform", lambda *args, u=flat, **kwargs: u)
        their_gap = theirs._cql_loss(
            ts.transition(given.observation[:, 0], given.reward[:, 0]), given.action[:, 0]
        )
        monkeypatch.undo()
        if spec is SCALAR_BOUNDS:
            np.testing.assert_allclose(gap, their_gap, rtol=1e-6)
        else:
            assert abs(float(gap - their_gap)) > 0.1


def test_weights_of_examples_count_in_the_gap():
    agent = make()
    weights = tf.constant([0.0, 2.0] * (BATCH // 2))
    weighted = agent.loss(experience(), weights=weights).extra.cql_gap
    assert abs(float(weighted - agent.loss(experience()).extra.cql_gap)) > 1e-3


@pytest.mark.parametrize("jit_compile", [False, True])
@pytest.mark.parametrize("threshold, direction", [(0.0, 1), (1e6, -1)])
def test_multiplier_moves_towards_its_solution(jit_compile, threshold, direction):
    agent = make(
        lagrange_threshold=threshold,
        lagrange_optimizer=tf.keras.optimizers.legacy.Adam(0.1),
        jit_compile=jit_compile,
    )
    agent.train(experience())
    # The first step of Adam is its rate.
    np.testing.assert_allclose(agent._log_multiplier, direction * 0.1, rtol=1e-3)


@pytest.mark.parametrize("seed", [5, None])
def test_training_compiled_as_a_function_with_and_without_a_seed(seed):
    agent = make(seed=seed)
    info = tf.function(agent.train)(experience())
    assert np.isfinite(info.loss) and int(agent.train_step_counter) == 1


def test_without_a_threshold_the_multiplier_stays():
    agent = make()
    agent.train(experience())
    assert float(agent.cql_multiplier) == 1.0


def test_actor_clones_the_data_at_first():
    """The loss without Q: alpha log pi(a|s) - log pi of the data's action."""
    agent = make(num_cloning_steps=1)
    drawn, given = record(agent), experience()
    cloning = agent.loss(given).extra.actor_loss
    policy = agent._pi(agent._as_transition(given).time_step, False)
    log_data = policy.log_prob(given.action[:, 0])
    np.testing.assert_allclose(cloning, tf.reduce_mean(drawn[2][1] - log_data), rtol=1e-5)
    later, never = agent, make()
    for each in (later, never):
        each.train_step_counter.assign(1)
    np.testing.assert_allclose(
        later.loss(given).extra.actor_loss, never.loss(given).extra.actor_loss, rtol=1e-6
    )


@pytest.mark.parametrize(
    "options, message",
    [
        ({"cql_weight": -1.0}, "cql_weight is -1.0"),
        ({"num_action_samples": 0}, "num_action_samples is 0"),
        ({"softmax_temperature": 0.0}, "softmax_temperature is 0.0"),
        ({"lagrange_threshold": 1.0}, "lagrange_optimizer is None"),
        ({"num_cloning_steps": 1.5}, "num_cloning_steps is 1.5"),
    ],
)
def test_bad_arguments_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        make(**options)
