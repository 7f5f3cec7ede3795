"""TF-Agents' own tests of SacAgent, imported from its wheel and run on FbrcAgent.

With log mu = 0, no penalty, no bonus and the entropy term on, FbrcAgent must pass them unchanged.
All methods of `SacAgentTest` are run; none is left out.
"""

import sys
import types
import unittest.mock

import pytest
import tensorflow as tf
import tensorflow_probability as tfp
from tf_agents.networks import network
from tf_agents.utils import nest_utils

from fbrc_agent import fbrc_agent

# TF-Agents' tests import the package that became unittest.mock.
sys.modules.setdefault("mock", unittest.mock)
from tf_agents.agents.sac import sac_agent_test  # noqa: E402


class UnitDistribution(tfp.distributions.Distribution):
    """Density 1 everywhere, of any batch shape: log mu = 0 with gradient 0."""

    def __init__(self, sizes, event_shape, dtype):
        parameters = dict(locals())
        self._sizes, self._shape = sizes, event_shape
        super().__init__(
            dtype=dtype,
            reparameterization_type=tfp.distributions.NOT_REPARAMETERIZED,
            validate_args=False,
            allow_nan_stats=True,
            parameters=parameters,
        )

    def _batch_shape(self):
        return tf.TensorShape(self._sizes)

    def _event_shape(self):
        return tf.TensorShape(self._shape)

    def _log_prob(self, value):
        return 0.0 * tf.reduce_sum(value, axis=list(range(len(self._sizes), value.shape.rank)))


class UnitBehaviorNetwork(network.Network):
    """Gives a `UnitDistribution` for every action of a nest."""

    def __init__(self, input_tensor_spec, action_spec, name="UnitBehaviorNetwork"):
        super().__init__(input_tensor_spec, state_spec=(), name=name)
        self._action_spec = action_spec

    def call(self, observation, step_type=(), network_state=(), training=False):
        outer = nest_utils.get_outer_shape(observation, self.input_tensor_spec)
        outer_rank = outer.shape[0]
        sizes = tf.nest.flatten(observation)[0].shape[:outer_rank]
        distributions = tf.nest.map_structure(
            lambda spec: UnitDistribution(sizes, spec.shape, spec.dtype), self._action_spec
        )
        return distributions, network_state


def fbrc_as_sac(time_step_spec, action_spec, *args, **kwargs):
    """Creates an FbrcAgent from SacAgent's arguments."""
    return fbrc_agent.FbrcAgent(
        time_step_spec,
        action_spec,
        *args,
        behavior_network=UnitBehaviorNetwork(time_step_spec.observation, action_spec),
        gradient_penalty_weight=0.0,
        include_critic_entropy_term=True,
        **kwargs,
    )


@pytest.fixture(autouse=True)
def _fbrc_in_place_of_sac(monkeypatch):
    original = sac_agent_test.sac_agent
    replaced = types.SimpleNamespace(**{**vars(original), "SacAgent": fbrc_as_sac})
    monkeypatch.setattr(sac_agent_test, "sac_agent", replaced)


class FbrcAsSacTest(sac_agent_test.SacAgentTest):
    """pytest collects the inherited methods."""

    test_session = None  # a deprecated helper of tf.test.TestCase, not a test


@pytest.mark.parametrize(
    "name",
    [
        "testCreateAgent",
        "testAgentTrajectoryTrain",
        "testAgentTransitionTrain",
        "testCriticLoss",
        "testCriticRegLoss",
        "testActorLoss",
        "testAlphaLoss",
        "testLoss",
        "testPolicy",
        "testTrainWithRnn",
        "testSharedLayer",
    ],
)
def test_upstream_has_the_method(name):
    assert any(method.startswith(name) for method in dir(FbrcAsSacTest))
