"""Trains both agents under a strategy; one process of strategy_test.py.

    python -m tests.helpers.strategy_worker (mirrored | multi_worker) OUTPUT.npz

Everything is real but the actor: its sample is a function of the observation, so that an example
is given the same noise whichever replica it comes to.
"""

import sys
import tempfile

import numpy as np
import tensorflow as tf
import tensorflow_probability as tfp
from tf_agents.agents.ddpg import critic_network
from tf_agents.networks import network
from tf_agents.train import learner
from tf_agents.train.utils import train_utils

from fbrc_agent.agents import behavior as behavior_agent
from fbrc_agent.agents import fbrc as fbrc_agent
from fbrc_agent.datasets import batches, offline_data
from fbrc_agent.networks import behavior_network
from fbrc_agent.training import strategy as strategies

BATCH_SIZE, STEPS, PENALTY_WEIGHT = 8, 10, 0.1
NUM_ACTIONS = 2


class ExampleNormal(tfp.distributions.Normal):
    """A normal whose sample is loc + scale * noise with a given noise."""

    def __init__(self, loc, scale, noise):
        self._noise = noise
        super().__init__(loc, scale)
        self._parameters = {"loc": loc, "scale": scale, "noise": noise}

    @classmethod
    def _parameter_properties(cls, dtype, num_classes=None):
        names = ("loc", "scale", "noise")
        return {name: tfp.util.ParameterProperties() for name in names}

    def _sample_n(self, n, seed=None):
        sample = self.loc + self.scale * self._noise
        return tf.broadcast_to(sample, tf.concat([[n], tf.shape(sample)], axis=0))


class ExampleActor(network.Network):
    """Two layers and an `ExampleNormal`."""

    def __init__(self, input_tensor_spec, name="ExampleActor"):
        super().__init__(input_tensor_spec, state_spec=(), name=name)
        self._hidden = tf.keras.layers.Dense(16, activation="tanh")
        self._head = tf.keras.layers.Dense(2 * NUM_ACTIONS)

    def call(self, observation, step_type=(), network_state=(), training=False):
        loc, scale = tf.split(self._head(self._hidden(observation)), 2, axis=-1)
        noise = tf.sin(1000.0 * observation[..., :NUM_ACTIONS])
        actions = ExampleNormal(0.5 * tf.tanh(loc), tf.exp(scale - 1.5), noise)
        return tfp.distributions.Independent(actions, 1), network_state


def make_data(size=60):
    generator = np.random.default_rng(0)
    observations = generator.normal(size=[size, 3]).astype(np.float32)
    return offline_data.OfflineData.from_arrays(
        observations=observations,
        actions=generator.uniform(-0.95, 0.95, [size, NUM_ACTIONS]).astype(np.float32),
        rewards=generator.normal(size=size).astype(np.float32),
        next_observations=observations + 0.1,
        discounts=generator.integers(0, 2, size).astype(np.float32),
        action_bounds=(-1.0, 1.0),
    )


def make_agents(data, penalty_weight):
    """Returns the two agents by name."""
    specs = data.time_step_spec.observation, data.action_spec

    def adam():
        # The usual epsilon, 1e-7, would hide that all gradients are a factor off.
        return tf.keras.optimizers.Adam(1e-3, epsilon=1e-2)

    def make_density():
        return behavior_network.MixtureBehaviorNetwork(
            *specs, num_components=2, fc_layer_params=(16,)
        )

    behavior = behavior_agent.BehaviorAgent(
        data.time_step_spec,
        data.action_spec,
        make_density(),
        adam(),
        train_step_counter=train_utils.create_train_step(),
    )
    fbrc = fbrc_agent.FbrcAgent(
        data.time_step_spec,
        data.action_spec,
        # Not the authors' small last layer, with which the penalty could be left out unseen.
        critic_network.CriticNetwork(
            specs, joint_fc_layer_params=(16,), last_kernel_initializer="glorot_uniform"
        ),
        ExampleActor(specs[0]),
        *(adam() for _ in range(3)),
        behavior_network=make_density(),
        gradient_penalty_weight=penalty_weight,
        include_critic_entropy_term=True,
        gamma=0.99,
        target_update_tau=0.05,
        train_step_counter=train_utils.create_train_step(),
    )
    return {"behavior": behavior, "fbrc": fbrc}


def train(strategy, penalty_weight=PENALTY_WEIGHT):
    """Trains both agents; returns their variables and what the Learner returns for each step."""
    data = make_data()
    results = {"replicas": np.array(strategy.num_replicas_in_sync)}
    # Only the chief starts as one replica does; the others must get its weights.
    tf.keras.utils.set_random_seed(strategies.worker_index(strategy))
    with strategy.scope():
        agents = make_agents(data, penalty_weight)
    for name, agent in agents.items():
        dataset = strategy.distribute_datasets_from_function(
            lambda context: batches.make_tf_dataset(data, BATCH_SIZE, 0, input_context=context)
        )
        with tempfile.TemporaryDirectory() as directory:
            agent_learner = learner.Learner(
                directory,
                agent.train_step_counter,
                agent,
                checkpoint_interval=0,
                summary_interval=0,
                strategy=strategy,
            )
            iterator = iter(dataset)
            losses = [agent_learner.run(iterations=1, iterator=iterator) for _ in range(STEPS)]
        for field in losses[0].extra._fields:
            key = f"{name}/losses/{field}"
            results[key] = np.array([float(getattr(loss.extra, field)) for loss in losses])
        results[f"{name}/losses/loss"] = np.array([float(loss.loss) for loss in losses])
        for i, variable in enumerate(agent.variables):
            results[f"{name}/variables/{i}"] = variable.numpy()
    return results


def main(kind, output):
    if kind == "mirrored":
        device = tf.config.list_physical_devices("CPU")[0]
        tf.config.set_logical_device_configuration(
            device, [tf.config.LogicalDeviceConfiguration()] * 2
        )
        strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
    else:
        strategy = tf.distribute.MultiWorkerMirroredStrategy()
    np.savez(output, **train(strategy))


if __name__ == "__main__":
    main(*sys.argv[1:])
