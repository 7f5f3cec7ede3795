"""What the benchmark measures within one process: updates, the Learner, evaluations."""

import os
import time
from collections.abc import Collection, Sequence
from typing import Any, Callable

import gin
import numpy as np
import tensorflow as tf
from tf_agents.agents import tf_agent
from tf_agents.agents.cql import cql_sac_agent
from tf_agents.agents.sac import sac_agent
from tf_agents.policies import actor_policy, greedy_policy
from tf_agents.specs import tensor_spec
from tf_agents.train import learner
from tf_agents.train.utils import train_utils
from tf_agents.trajectories import time_step as ts
from tf_agents.typing import types
from tf_agents.utils import common

from fbrc_agent.agents import behavior as behavior_agent
from fbrc_agent.datasets import batches, offline_data
from fbrc_agent.environments import gymnasium_environment
from fbrc_agent.evaluation import rollouts
from fbrc_agent.experiments import benchmark_io
from fbrc_agent.networks import actor_network, behavior_network, critic_network
from fbrc_agent.training import construction

# Ends the name of a contender that is called from Python for each update.
_CALLS = "_calls"
# F-BRC with one argument changed: what a part of the update costs.
_VARIANTS = {
    "fbrc_no_penalty": ("gradient_penalty_weight", 0.0),
    "fbrc_own_sample": ("share_actor_sample", False),
    "fbrc_shared_pass": ("share_critic_pass", True),
    "fbrc_jit": ("jit_compile", True),
}
# CqlSacAgent as its authors' comparison with Fisher-BRC has it.
_CQL = {
    "cql_alpha": 5.0,
    "num_cql_samples": 10,
    "include_critic_entropy_term": False,
    "use_lagrange_cql_alpha": False,
}


def update_flops(
    observation_size: int,
    action_size: int,
    offset_layers: Sequence[int],
    actor_layers: Sequence[int],
    behavior_layers: Sequence[int],
    num_components: int,
    batch_size: int = 1,
    share_actor_sample: bool = False,
    share_critic_pass: bool = False,
) -> int:
    """Returns the floating-point operations of the products of matrices in one F-BRC update.

    It counts what an exact update needs, not what a program happens to do; 2 operations for each
    multiply-add. A pass forward takes n m multiply-adds per example for a layer of n inputs and m
    outputs, its kernel's gradient (dW) and its inputs' gradient (dX) as many each:

        critic loss  pi(s'), mu(s'), mu(s); the target offsets; each offset network on the data
                     forward, dW and dX, dX not of the first layer
        penalty      pi(s); each offset network forward up to its last hidden layer, dX from there
                     down to the action, and of the latter's norm: a chain forward, from the action
                     to the last hidden layer but one, and dW. The second derivative of ReLU is
                     zero, and the value's weights are multiplied into a kernel (`relu_critic`).
        actor loss   each offset network forward and dX down to the action, with the penalty's
                     pi(s) and the critic's mu(s); the actor's dW and dX, dX not of the first layer
                     with share_critic_pass the offset networks' last layer forward instead
        temperature  pi(s) of the new actor; nothing if it takes the actor's sample

    Args:
        observation_size: S.
        action_size: A.
        offset_layers: Units of the hidden ReLU layers of the offset networks, one at the least.
        actor_layers: Units of the hidden layers of the actor, which has 2 A outputs.
        behavior_layers: Units of the hidden layers of mu.
        num_components: Components of mu's mixtures, one mixture per action dimension.
        batch_size: Examples in the update.
        share_actor_sample: As of `FbrcAgent`.
        share_critic_pass: As of `FbrcAgent`.
    """
    offset = _products([observation_size + action_size, *offset_layers, 1])
    actor = _products([observation_size, *actor_layers, 2 * action_size])
    mu = _products([observation_size, *behavior_layers, 3 * action_size * num_components])
    of_action = action_size * offset_layers[0]  # The action's part of the first layer.
    slope = [of_action, *offset[1:-1]]
    critic_loss = (
        sum(actor)
        + 2 * sum(mu)
        + 2 * sum(offset)
        + 2 * (sum(offset) + sum(offset) + sum(offset[1:]))
    )
    penalty = sum(actor) + 2 * (sum(offset[:-1]) + sum(slope) + sum(slope[:-1]) + sum(slope))
    of_critics = offset[-1] if share_critic_pass else sum(offset) + sum(slope) + offset[-1]
    actor_loss = 2 * of_critics + sum(actor) + sum(actor[1:])
    temperature = 0 if share_actor_sample else sum(actor)
    return 2 * batch_size * (critic_loss + penalty + actor_loss + temperature)


def _products(units: Sequence[int]) -> list[int]:
    return [inputs * outputs for inputs, outputs in zip(units, units[1:])]


def configured_flops(sizes: benchmark_io.Sizes) -> int:
    """Returns `update_flops` of the sizes and gin's networks."""
    return update_flops(
        sizes.observation_size,
        sizes.action_size,
        gin.query_parameter("create_offset_network.fc_layer_params"),
        gin.query_parameter("create_actor_network.fc_layer_params"),
        gin.query_parameter("MixtureBehaviorNetwork.fc_layer_params"),
        gin.query_parameter("MixtureBehaviorNetwork.num_components"),
        sizes.batch_size,
        *(
            gin.query_parameter(f"FbrcAgent.share_{what}")
            for what in ("actor_sample", "critic_pass")
        ),
    )


def rate(function: Callable[[], Any], seconds: float) -> float:
    """Returns calls per second; it calls until the time is over, at least once."""
    started, calls = time.perf_counter(), 0
    while True:
        function()
        calls += 1
        passed = time.perf_counter() - started
        if passed >= seconds:
            return calls / passed


def make_updates(
    sizes: benchmark_io.Sizes, wanted: Collection[str]
) -> dict[str, benchmark_io.Contender]:
    """Returns contenders that take updates/s on one batch, and the ceiling of products.

    A call makes `updates_per_call` updates in TensorFlow's loop, as the Learner's does; that of
    "<name>_calls" makes one.
    """
    data = benchmark_io.synthetic_data(sizes, rows=sizes.batch_size)
    batch = next(iter(batches.make_tf_dataset(data, sizes.batch_size, seed=0)))[0]

    def updates(name: str) -> tuple[str, Callable[[], Any], int]:
        agent = _make_agent(name.removesuffix(_CALLS), data)
        agent.initialize()
        count = 1 if name.endswith(_CALLS) else sizes.updates_per_call
        step = common.function(agent.train) if count == 1 else updates_in_one_call(agent, count)
        return name, lambda: step(batch), count

    def contender(name: str, run: Callable[[], Any], updates: int) -> benchmark_io.Contender:
        run()
        key = f"{name}_updates_per_second"
        return lambda: {key: rate(run, sizes.seconds) * updates}

    # All are made before any is warmed up: setting the seed of one drops the others' kernels.
    made = {name: updates(name) for name in wanted if name != "gemm"}
    contenders = {name: contender(*parts) for name, parts in made.items()}
    return {**contenders, **({"gemm": _make_gemm(sizes)} if "gemm" in wanted else {})}


def updates_in_one_call(
    agent: tf_agent.TFAgent, count: int
) -> Callable[[types.NestedTensor], None]:
    """Returns a function that makes `count` updates on one batch, in TensorFlow's loop."""

    @tf.function(autograph=False)
    def run(batch: types.NestedTensor) -> None:
        def update(index: tf.Tensor) -> tuple[tf.Tensor]:
            agent.train(batch)
            return (index + 1,)

        tf.while_loop(lambda index: index < count, update, (tf.constant(0),))

    return run


def _make_agent(name: str, data: offline_data.OfflineData) -> tf_agent.TFAgent:
    """Returns an agent with the networks of gin; 'fbrc' and 'behavior' are wholly gin's."""
    specs = data.time_step_spec, data.action_spec
    observation_and_action = data.time_step_spec.observation, data.action_spec
    tf.keras.utils.set_random_seed(0)
    if name in _VARIANTS:
        argument, value = _VARIANTS[name]
        with gin.unlock_config():
            gin.bind_parameter(f"{name}/FbrcAgent.{argument}", value)
        with gin.config_scope(name):
            return _make_agent("fbrc", data)
    if name in ("behavior", "fbrc"):
        mu = behavior_network.MixtureBehaviorNetwork(*observation_and_action)
        if name == "fbrc":
            return construction.create_fbrc_agent(*specs, 0, {"behavior": mu})
        step = train_utils.create_train_step()
        return behavior_agent.BehaviorAgent(*specs, behavior_network=mu, train_step_counter=step)  # type: ignore[call-arg]
    agent_class = {"sac": sac_agent.SacAgent, "cql": cql_sac_agent.CqlSacAgent}[name]
    optimizers = {
        f"{part}_optimizer": tf.keras.optimizers.Adam(
            gin.query_parameter(f"{part}/Adam.learning_rate")
        )
        for part in ("actor", "critic", "alpha")
    }
    return agent_class(
        *specs,
        critic_network=critic_network.create_offset_network(observation_and_action),
        actor_network=actor_network.create_actor_network(*observation_and_action),
        gamma=gin.query_parameter("FbrcAgent.gamma"),
        target_update_tau=gin.query_parameter("FbrcAgent.target_update_tau"),
        train_step_counter=train_utils.create_train_step(),
        **optimizers,
        **(_CQL if name == "cql" else {}),
    )


def _make_gemm(sizes: benchmark_io.Sizes) -> benchmark_io.Contender:
    """Returns a contender that takes the FLOP/s of large products, in two ways.

    One product is shared by the threads of the intra-op pool; where that has one thread, the cores
    are only busy with one product each.
    """
    size = sizes.gemm_size
    right = tf.random.normal([size, size])
    lefts = [tf.random.normal([size, size]) for _ in range(len(os.sched_getaffinity(0)))]

    @tf.function(autograph=False)
    def products(factors: list[tf.Tensor]) -> list[tf.Tensor]:
        return [tf.linalg.matmul(factor, right) for factor in factors]

    def flops(factors: list[tf.Tensor]) -> float:
        calls = rate(lambda: products(factors), sizes.seconds / 2)
        return calls * len(factors) * 2 * size**3

    for factors in (lefts[:1], lefts):
        products(factors)
    return lambda: {
        "one_product_flops": flops(lefts[:1]),
        "product_per_core_flops": flops(lefts),
        "flop_per_update": float(configured_flops(sizes)),
    }


def make_learner(sizes: benchmark_io.Sizes, directory: str) -> dict[str, benchmark_io.Contender]:
    """Returns contenders that take updates/s of one Learner, fed by the data and by one batch."""
    data = benchmark_io.synthetic_data(sizes, sizes.rows)
    agent = _make_agent("fbrc", data)
    trainer = learner.Learner(
        os.path.join(directory, "learner"),
        agent.train_step_counter,
        agent,
        checkpoint_interval=0,
        summary_interval=1000,
        strategy=tf.distribute.get_strategy(),
    )
    dataset = batches.make_tf_dataset(data, sizes.batch_size, seed=0)
    constant = tf.data.Dataset.from_tensors(next(iter(dataset))).repeat()

    def contender(name: str, source: tf.data.Dataset) -> benchmark_io.Contender:
        iterator = iter(source)

        def run() -> None:
            trainer.run(iterations=sizes.updates_per_call, iterator=iterator)

        run()
        key = f"{name}_updates_per_second"
        return lambda: {key: rate(run, 2 * sizes.seconds) * sizes.updates_per_call}

    return {
        "data": contender("learner_data", dataset),
        "constant": contender("learner_constant", constant),
    }


def make_evaluation(sizes: benchmark_io.Sizes) -> dict[str, benchmark_io.Contender]:
    """Returns contenders that take steps/s of episodes side by side and one after another."""
    environment = gymnasium_environment.GymnasiumEnvironment(sizes.environment)
    observation_spec = tensor_spec.from_spec(environment.observation_spec())
    action_spec = tensor_spec.from_spec(environment.action_spec())
    environment.close()
    network = actor_network.create_actor_network(observation_spec, action_spec)
    policy = actor_policy.ActorPolicy(
        ts.time_step_spec(observation_spec), action_spec, actor_network=network
    )
    action_fn = rollouts.policy_action_fn(greedy_policy.GreedyPolicy(policy))
    for episodes in (1, sizes.episodes):  # One trace each.
        action_fn(np.zeros((episodes, *observation_spec.shape), np.float32))

    def steps_per_second(episodes: int) -> float:
        """Runs all episodes, so many at a time."""
        started = time.perf_counter()
        steps = sum(
            rollouts.evaluate(action_fn, sizes.environment, episodes, seed=i).lengths.sum()
            for i in range(0, sizes.episodes, episodes)
        )
        return float(steps) / (time.perf_counter() - started)

    return {
        "together": lambda: {"together_steps_per_second": steps_per_second(sizes.episodes)},
        "one_by_one": lambda: {"one_by_one_steps_per_second": steps_per_second(1)},
    }
