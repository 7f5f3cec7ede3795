"""TF-Agents' own tests of SacAgent, imported from its wheel and run on FbrcAgent.

With log mu = 0, no penalty, no bonus and the entropy term on, FbrcAgent must pass them unchanged.
All methods of `SacAgentTest` are run; none is left out.
"""

import types
from unittest import mock

import pytest
import tensorflow as tf

from fbrc_agent.agents import fbrc as fbrc_agent
from tests.helpers import unit_density, upstream_tests

sac_agent_test = upstream_tests.load("agents.sac.sac_agent_test")


def fbrc_as_sac(time_step_spec, action_spec, *args, **kwargs):
    """Creates an FbrcAgent from SacAgent's arguments."""
    return fbrc_agent.FbrcAgent(
        time_step_spec,
        action_spec,
        *args,
        behavior_network=unit_density.UnitBehaviorNetwork(time_step_spec.observation, action_spec),
        gradient_penalty_weight=0.0,
        include_critic_entropy_term=True,
        **kwargs,
    )


@pytest.fixture(autouse=True)
def _fbrc_in_place_of_sac(monkeypatch):
    original = sac_agent_test.sac_agent
    replaced = types.SimpleNamespace(**{**vars(original), "SacAgent": fbrc_as_sac})
    monkeypatch.setattr(sac_agent_test, "sac_agent", replaced)


@upstream_tests.leaving_out({})
class FbrcAsSacTest(sac_agent_test.SacAgentTest):
    """pytest collects the inherited methods."""

    def testLoss(self):  # noqa: N802
        # Upstream fixes what SacAgent._actions_and_log_probs draws; FbrcAgent draws in _sample.
        drawn = tf.constant([[0.2], [0.5], [-0.8]]), tf.constant([-1.1, -0.8, -0.5])
        with mock.patch.object(fbrc_agent.FbrcAgent, "_sample", return_value=drawn):
            super().testLoss()


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
    assert any(method.startswith(name) for method in upstream_tests.methods(FbrcAsSacTest))
