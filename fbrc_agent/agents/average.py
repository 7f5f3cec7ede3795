"""An exponential average of an actor's weights, and its policy."""

from typing import Callable

import tensorflow as tf
from tf_agents.networks import network
from tf_agents.policies import tf_policy
from tf_agents.typing import types
from tf_agents.utils import common


class ActorAverage(tf.Module):
    """The actor with the averaged weights w', after each update decay * w' + (1 - decay) * w.

    Attributes:
      policy: The policy of the averaged actor.
    """

    def __init__(
        self,
        actor_network: network.Network,
        decay: types.Float,
        make_policy: Callable[[network.Network], tf_policy.TFPolicy],
    ):
        """Creates the average, equal to the actor.

        Args:
          actor_network: The actor, its variables w made.
          decay: 0 to 1; the average is over about 1 / (1 - decay) updates.
          make_policy: Makes a policy of a network.
        """
        super().__init__(name="actor_average")
        self._actor_network = actor_network
        self._network = actor_network.copy(name="AverageActorNetwork")
        self._network.create_variables()
        self.policy = make_policy(self._network)
        # Under a strategy it updates once, not on each replica.
        self.update = common.Periodically(lambda: self._move(1.0 - decay), 1, "actor_average")
        self.restart()

    def restart(self) -> None:
        """Makes the average equal to the actor."""
        self._move(1.0)

    def _move(self, tau: types.Float) -> tf.Operation:
        return common.soft_variables_update(
            self._actor_network.variables, self._network.variables, tau
        )
