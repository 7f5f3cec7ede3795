"""TF-Agents' own tests of CqlSacAgent, imported from its wheel, where they concern FbrcAgent too.

Both are SacAgent with a switch for the entropy term of the TD target and a term of their own in the
critic loss. Without their own terms they must be one agent. What tests CQL's own is left out, each
method with its reason.
"""

import types

import numpy as np
import pytest
import tensorflow as tf
from tf_agents.agents.cql import cql_sac_agent
from tf_agents.agents.ddpg import critic_network, critic_rnn_network
from tf_agents.agents.sac import tanh_normal_projection_network as tanh_normal
from tf_agents.networks import actor_distribution_rnn_network
from tf_agents.specs import tensor_spec
from tf_agents.trajectories import time_step as ts
from tf_agents.trajectories import trajectory

from fbrc_agent.agents import fbrc as fbrc_agent
from fbrc_agent.networks import actor_network
from tests.helpers import same_noise, unit_density, upstream_tests

cql_sac_agent_test = upstream_tests.load("agents.cql.cql_sac_agent_test")

_OWN_ARGUMENTS = {
    "cql_alpha",
    "num_cql_samples",
    "use_lagrange_cql_alpha",
    "num_bc_steps",
    "reward_noise_variance",
    "random_seed",
}
_CQL_LOSS = "tests the CQL loss log sum exp Q - Q, which Fisher-BRC replaces by its penalty"
_LAGRANGE = "tests the Lagrange multiplier of the CQL loss, which Fisher-BRC does not have"
_REWARD_NOISE = "tests reward_noise_variance, an argument of CqlSacAgent only"
_BEHAVIORAL_CLONING = "tests num_bc_steps, an argument of CqlSacAgent only"

LEFT_OUT = {
    "testCqlLoss0": _CQL_LOSS,
    "testCqlLoss1": _CQL_LOSS,
    "testCriticLoss2": _REWARD_NOISE,
    "testCriticLoss3": _REWARD_NOISE,
    "testActorLoss1": _BEHAVIORAL_CLONING,
    "testTrainWithRnn0": "its loss is a number for CqlSacAgent's own seeds of the actions; "
    "test_without_their_own_terms_it_is_cql trains recurrent networks on the same noise instead",
    "testTrainWithRnn1": _CQL_LOSS,
    "testTrainWithRnn2": _CQL_LOSS,
    "testTrainWithRnn3": _LAGRANGE,
    "testTrainWithLagrange0": _LAGRANGE,
    "testTrainWithLagrange1": _LAGRANGE,
    "testTrainWithLagrange2": _LAGRANGE,
}
RUN = {
    "testAgentTrajectoryTrain",
    "testAgentTransitionTrain",
    "testCriticLoss0",  # without the entropy term
    "testCriticLoss1",  # with it
    "testActorLoss0",
}


class FbrcAsCql(fbrc_agent.FbrcAgent):
    """FbrcAgent under the two names by which upstream's tests call CqlSacAgent's losses."""

    _critic_loss_with_optional_entropy_term = fbrc_agent.FbrcAgent.critic_loss

    def actor_loss(self, time_steps, actions=None, weights=None, training=True):
        """Returns the actor loss; CqlSacAgent takes the data's actions before the weights."""
        return super().actor_loss(time_steps, weights=weights, training=training)


def fbrc_as_cql(time_step_spec, action_spec, **kwargs):
    """Creates an FbrcAgent from CqlSacAgent's arguments, without those of its own."""
    return FbrcAsCql(
        time_step_spec,
        action_spec,
        behavior_network=unit_density.UnitBehaviorNetwork(time_step_spec.observation, action_spec),
        gradient_penalty_weight=0.0,
        **{name: value for name, value in kwargs.items() if name not in _OWN_ARGUMENTS},
    )


@pytest.fixture(autouse=True)
def _fbrc_in_place_of_cql(monkeypatch):
    replaced = types.SimpleNamespace(CqlSacAgent=fbrc_as_cql)
    monkeypatch.setattr(cql_sac_agent_test, "cql_sac_agent", replaced)


@upstream_tests.leaving_out(LEFT_OUT)
class FbrcAsCqlTest(cql_sac_agent_test.CqlSacAgentTest):
    """pytest collects the inherited methods."""


def test_every_upstream_method_is_run_or_left_out():
    assert upstream_tests.methods(FbrcAsCqlTest) == RUN
    assert upstream_tests.methods(cql_sac_agent_test.CqlSacAgentTest) == RUN | set(LEFT_OUT)


OBSERVATION = tensor_spec.TensorSpec([3], tf.float32, "observation")
ACTION = tensor_spec.BoundedTensorSpec([2], tf.float32, -2.0, 2.0, "action")
BATCH, STEPS = 8, 3


def feedforward():
    """A critic and an actor."""
    return critic_network.CriticNetwork(
        (OBSERVATION, ACTION), joint_fc_layer_params=(16,)
    ), actor_network.create_actor_network(OBSERVATION, ACTION, (16,))


def recurrent():
    """A critic and an actor with LSTMs."""
    return critic_rnn_network.CriticRnnNetwork(
        (OBSERVATION, ACTION),
        joint_fc_layer_params=(16,),
        lstm_size=(8,),
        output_fc_layer_params=None,
    ), actor_distribution_rnn_network.ActorDistributionRnnNetwork(
        OBSERVATION,
        ACTION,
        input_fc_layer_params=None,
        lstm_size=(8,),
        output_fc_layer_params=None,
        continuous_projection_net=tanh_normal.TanhNormalProjectionNetwork,
    )


def agent_without_own_term(create, networks, include_critic_entropy_term, **own):
    """Creates an agent without its own term in the critic loss."""
    critic, actor = networks()
    agent = create(
        ts.time_step_spec(OBSERVATION),
        ACTION,
        critic_network=critic,
        actor_network=actor,
        actor_optimizer=tf.keras.optimizers.Adam(1e-2),
        critic_optimizer=tf.keras.optimizers.Adam(1e-2),
        alpha_optimizer=tf.keras.optimizers.Adam(1e-2),
        include_critic_entropy_term=include_critic_entropy_term,
        target_update_tau=0.1,
        gamma=0.9,
        train_step_counter=tf.Variable(0, dtype=tf.int64),
        **own,
    )
    agent.initialize()
    return agent


def experience(seed, length):
    """Random trajectories."""
    generator = np.random.default_rng(seed)
    steps = tf.fill([BATCH, length], ts.StepType.MID)
    return trajectory.Trajectory(
        steps,
        tf.constant(generator.standard_normal((BATCH, length, 3)), tf.float32),
        tf.constant(generator.uniform(-2, 2, (BATCH, length, 2)), tf.float32),
        (),
        steps,
        tf.constant(generator.standard_normal((BATCH, length)), tf.float32),
        tf.ones([BATCH, length]),
    )


@pytest.fixture
def _eagerly():
    """CqlSacAgent's actor loss is a tf.function, which would keep the noise of its first trace."""
    tf.config.run_functions_eagerly(True)
    yield
    tf.config.run_functions_eagerly(False)


@pytest.mark.usefixtures("_eagerly")
@pytest.mark.parametrize(
    "networks, entropy_term", [(feedforward, False), (feedforward, True), (recurrent, False)]
)
def test_without_their_own_terms_it_is_cql(networks, entropy_term):
    ours = agent_without_own_term(fbrc_as_cql, networks, entropy_term)
    no_cql = {"cql_alpha": 0.0, "num_cql_samples": 1, "use_lagrange_cql_alpha": False}
    theirs = agent_without_own_term(cql_sac_agent.CqlSacAgent, networks, entropy_term, **no_cql)
    same_noise.share_weights(ours, theirs)
    length, outer = (2, (BATCH,)) if networks is feedforward else (3, (BATCH, 2))
    same_noise.assert_equal_training(
        ours,
        theirs,
        [experience(seed, length) for seed in range(STEPS)],
        same_noise.standard_normal(STEPS, *outer, 2),
        compiled=False,
    )
