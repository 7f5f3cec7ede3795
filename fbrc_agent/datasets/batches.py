"""Batches of transitions for TF-Agents, from `OfflineData`.

Batch i is a pure function of the seed and i, so that a run which is interrupted and resumed at step
i sees exactly the batches it would have seen.
"""

from typing import Optional

import gin
import tensorflow as tf
from tf_agents.trajectories import time_step as ts
from tf_agents.trajectories import trajectory

from fbrc_agent.datasets.offline_data import OfflineData
from fbrc_agent.utils import checks
from fbrc_agent.utils.errors import InputError

_PREFETCHED_BATCHES = 2

# Rounds of the cipher behind the shuffle. With TensorFlow's own 4, the orders of neighboring seeds
# and epochs are correlated (0.5 at 200,000 rows) and batches are not uniform; from 8 on, neither
# differs from chance by these measures, and 16 cost a few microseconds a batch.
_ROUNDS = 16


@gin.configurable
def make_tf_dataset(
    data: OfflineData,
    batch_size: int,
    seed: int,
    start: int = 0,
    input_context: Optional[tf.distribute.InputContext] = None,
) -> tf.data.Dataset:
    """Infinite dataset of batches, sampled without replacement within each epoch.

    The transitions are laid end to end in epochs, each in its own pseudorandom order; batch i holds
    positions i * B to (i + 1) * B - 1, so every epoch visits each transition exactly once and a
    batch may span two epochs.

    Under a `tf.distribute.Strategy` of R replicas, batch i is cut into R equal shards, so that the
    replicas together see what one would see, and no transition twice in an epoch:

        strategy.distribute_datasets_from_function(
            lambda context: make_tf_dataset(data, batch_size, seed, input_context=context)
        )

    Args:
      data: N transitions.
      batch_size: B, of all replicas together; at most N, a multiple of R.
      seed: Chooses the orders; 0 to 2**31 - 1.
      start: Index of the first batch.
      input_context: Which shards to yield: those of the replicas of one worker, in their order,
        for each batch. None for complete batches.

    Returns:
      Dataset of `(experience, ())`, what TF-Agents' `Learner` iterates over. It shares the memory
      of arrays that begin at a multiple of 64 bytes, as all that `load_dataset` reads do, and has
      a copy of others. `experience` is a `Trajectory` [B / R, 2, ...] of `to_trajectory`.

    Raises:
      InputError: If an argument is out of its range.
    """
    size = data.num_transitions
    context = input_context or tf.distribute.InputContext()
    num_shards = context.num_replicas_in_sync
    check_batches(data, batch_size, seed, start, num_shards)
    with tf.device("/CPU:0"):  # Where tf.data runs.
        # Not `tf.constant`, which copies, and twice. An op shares the memory of a NumPy array that
        # is aligned as TensorFlow's tensors are and copies it once where it is not.
        arrays = tuple(tf.raw_ops.Identity(input=array) for array in data.arrays.values())

    # A strategy hands what a worker's dataset yields to the worker's replicas in turn.
    num_local = num_shards // context.num_input_pipelines

    def make_shard(index: tf.Tensor) -> tuple[trajectory.Trajectory, tuple[()]]:
        shard = context.input_pipeline_id * num_local + index % num_local
        shard_index = index // num_local * num_shards + shard
        rows = _sample_rows(shard_index, batch_size // num_shards, size, seed)
        return to_trajectory(*(tf.gather(array, rows) for array in arrays)), ()

    # A rewrite of the pipeline would copy the arrays into its graph; the parallel map is what it
    # would bring.
    options = tf.data.Options()
    options.experimental_optimization.apply_default_optimizations = False
    dataset = tf.data.Dataset.counter(start=start * num_local, dtype=tf.int64)
    dataset = dataset.map(make_shard, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True)
    return dataset.prefetch(_PREFETCHED_BATCHES * num_local).with_options(options)


def first_batch(data: OfflineData, batch_size: int, seed: int) -> trajectory.Trajectory:
    """Returns the first batch of `make_tf_dataset`, of the same arguments, without a dataset."""
    check_batches(data, batch_size, seed)
    with tf.device("/CPU:0"):
        index = tf.constant(0, tf.int64)
        rows = _sample_rows(index, batch_size, data.num_transitions, seed).numpy()
        return to_trajectory(*(tf.constant(array[rows]) for array in data.arrays.values()))


def check_batches(
    data: OfflineData, batch_size: int, seed: int, start: int = 0, num_replicas: int = 1
) -> None:
    """Checks arguments of `make_tf_dataset`, with R replicas, without making a dataset.

    Raises:
      InputError: If an argument is out of its range.
    """
    checks.check_integer("batch_size", batch_size, 1)
    checks.check_integer("seed", seed, 0, 2**31 - 1)
    checks.check_integer("start", start, 0, 2**62 // batch_size)
    if batch_size > data.num_transitions:
        raise InputError(
            f"batch_size is {batch_size}; it must be at most {data.num_transitions}, the number of "
            "transitions."
        )
    if batch_size % num_replicas:
        raise InputError(
            f"batch_size is {batch_size}; under a strategy of {num_replicas} replicas it must be a "
            f"multiple of {num_replicas}, so that each gets the same share of a batch."
        )


def _sample_rows(batch_index: tf.Tensor, batch_size: int, size: int, seed: int) -> tf.Tensor:
    """Rows [B] int64 of a batch: position p is entry p mod N of the order of epoch p // N."""
    positions = batch_index * batch_size + tf.range(batch_size, dtype=tf.int64)
    epochs = positions // size
    seeds = tf.stack(
        [tf.fill([batch_size], tf.constant(seed, tf.int64)), epochs, tf.zeros_like(epochs)], axis=1
    )
    # The raw op: `tf.random.experimental.index_shuffle` mishandles one seed per index (TF 2.15).
    return tf.raw_ops.RandomIndexShuffle(
        index=positions % size,
        seed=seeds,
        max_index=tf.constant(size - 1, tf.int64),
        rounds=_ROUNDS,
    )


def to_trajectory(
    observations: tf.Tensor,
    actions: tf.Tensor,
    rewards: tf.Tensor,
    next_observations: tf.Tensor,
    discounts: tf.Tensor,
) -> trajectory.Trajectory:
    """Returns B transitions, s, a, r, s', d, as TF-Agents' agents take them.

    Frame 0 of the `Trajectory` [B, 2, ...] holds s, a, r and d, frame 1 holds s'; agents do not
    read the other numbers of frame 1.
    """

    def frames(first: tf.Tensor, second: tf.Tensor) -> tf.Tensor:
        return tf.stack([first, second], axis=1)

    middle = tf.fill(tf.shape(discounts), ts.StepType.MID)
    next_step_type = tf.where(discounts > 0, ts.StepType.MID, ts.StepType.LAST)
    return trajectory.Trajectory(
        step_type=frames(middle, next_step_type),
        observation=frames(observations, next_observations),
        action=frames(actions, tf.zeros_like(actions)),
        policy_info=(),
        next_step_type=frames(next_step_type, middle),
        reward=frames(rewards, tf.zeros_like(rewards)),
        discount=frames(discounts, tf.ones_like(discounts)),
    )
