"""The pipeline of TF-Agents' CQL example, without Reverb; examples/README.md swaps its agent."""

import fbrc_agent  # noqa: F401 (before TensorFlow, which it asks for Keras 2)

# isort: split
import argparse
import os

import gin
import tensorflow as tf
from absl import logging
from tf_agents.agents.cql import cql_sac_agent
from tf_agents.agents.ddpg import critic_network
from tf_agents.agents.sac.tanh_normal_projection_network import TanhNormalProjectionNetwork
from tf_agents.networks import actor_distribution_network
from tf_agents.policies import greedy_policy, py_tf_eager_policy
from tf_agents.train import actor, learner, triggers
from tf_agents.train.utils import strategy_utils, train_utils

from fbrc_agent.datasets import batches, sources
from fbrc_agent.environments import gymnasium_environment


@gin.configurable
def train_eval(
    root_dir,
    data=gin.REQUIRED,
    environment=gin.REQUIRED,
    num_iterations=gin.REQUIRED,
    learner_iterations_per_call=100,
    batch_size=256,
    actor_fc_layers=(256, 256),
    critic_joint_fc_layers=(256, 256, 256),
    actor_learning_rate=3e-5,
    critic_learning_rate=3e-4,
    alpha_learning_rate=3e-4,
    policy_save_interval=1000,
    eval_interval=1000,
    eval_episodes=10,
    use_gpu=False,
    seed=0,
):
    """Trains on `data`, as `load_dataset` takes it; evaluates in a Gymnasium `environment`.

    `batch_size` is of one replica: with `use_gpu`, of one GPU. `eval_interval` is a multiple of
    `learner_iterations_per_call`.
    """
    tf.keras.utils.set_random_seed(seed)
    offline = sources.load_dataset(data)
    observation_spec, action_spec = offline.time_step_spec.observation, offline.action_spec

    strategy = strategy_utils.get_strategy(tpu=False, use_gpu=use_gpu)
    with strategy.scope():
        train_step = train_utils.create_train_step()
        actor_net = actor_distribution_network.ActorDistributionNetwork(
            observation_spec,
            action_spec,
            fc_layer_params=actor_fc_layers,
            continuous_projection_net=TanhNormalProjectionNetwork,
        )
        critic_net = critic_network.CriticNetwork(
            (observation_spec, action_spec),
            joint_fc_layer_params=critic_joint_fc_layers,
            kernel_initializer="glorot_uniform",
            last_kernel_initializer="glorot_uniform",
        )
        agent = cql_sac_agent.CqlSacAgent(
            offline.time_step_spec,
            action_spec,
            critic_network=critic_net,
            actor_network=actor_net,
            actor_optimizer=tf.keras.optimizers.Adam(actor_learning_rate),
            critic_optimizer=tf.keras.optimizers.Adam(critic_learning_rate),
            alpha_optimizer=tf.keras.optimizers.Adam(alpha_learning_rate),
            train_step_counter=train_step,
        )
        agent.initialize()

    saved_model_dir = os.path.join(root_dir, learner.POLICY_SAVED_MODEL_DIR)
    agent_learner = learner.Learner(
        root_dir,
        train_step,
        agent,
        experience_dataset_fn=lambda: batches.make_tf_dataset(offline, batch_size, seed),
        triggers=[
            triggers.PolicySavedModelTrigger(
                saved_model_dir, agent, train_step, policy_save_interval, save_collect_policy=False
            ),
            triggers.StepPerSecondLogTrigger(train_step, interval=1000),
        ],
        strategy=strategy,
    )
    greedy = greedy_policy.GreedyPolicy(agent.policy)
    eval_actor = actor.Actor(
        gymnasium_environment.GymnasiumEnvironment(environment, seed),
        py_tf_eager_policy.PyTFEagerPolicy(greedy, use_tf_function=True),
        train_step,
        episodes_per_run=eval_episodes,
        metrics=actor.eval_metrics(eval_episodes),
        summary_dir=os.path.join(root_dir, "eval"),
    )

    while agent_learner.train_step_numpy < num_iterations:
        agent_learner.run(iterations=learner_iterations_per_call)
        if eval_interval and agent_learner.train_step_numpy % eval_interval == 0:
            eval_actor.run_and_log()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--root_dir", required=True, help="directory of the run")
    parser.add_argument("--gin_file", nargs="+", default=[], help="one of examples/gin/")
    parser.add_argument("--gin_bindings", nargs="+", default=[], help="gin bindings, after files")
    flags = parser.parse_args()
    logging.set_verbosity(logging.INFO)
    gin.parse_config_files_and_bindings(flags.gin_file, flags.gin_bindings)
    train_eval(flags.root_dir)
