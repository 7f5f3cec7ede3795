"""Samples that are a pure function of (seed, step), so that a resumed run draws what it would have.

TensorFlow's stateful generators keep a position that no checkpoint holds.
"""

from typing import Optional

import tensorflow as tf
from tf_agents.typing import types


def sample(
    distributions: types.NestedDistribution,
    seed: Optional[int],
    step: tf.Variable,
    draw: int,
    num_draws: int,
    sample_shape: Optional[types.Shape] = None,
) -> types.NestedTensor:
    """Returns samples of each distribution of a nest.

    With a seed, the sample of leaf l at step t, on replica r of R, has the stateless key

        (seed, (((t R + r) L + l) D + draw) mod 2^32),

    L the number of leaves, D that of draws: no two samples of a training run share a key.

    Args:
      distributions: A nest of distributions.
      seed: The seed, or None for TensorFlow's stateful generator.
      step: Counts the training steps, t.
      draw: Which of the draws of a step this is, 0 to `num_draws` - 1.
      num_draws: D.
      sample_shape: Shape of the samples, before that of a sample, a list or a tensor; None for one.
    """
    shape = () if sample_shape is None else (sample_shape,)
    if seed is None:
        return tf.nest.map_structure(lambda d: d.sample(*shape), distributions)
    replica = tf.distribute.get_replica_context()
    index = tf.cast(step, tf.int32)
    if replica is not None:
        index = index * replica.num_replicas_in_sync + replica.replica_id_in_sync_group
    leaves = tf.nest.flatten(distributions)
    samples = [
        distribution.sample(
            *shape,
            seed=tf.stack([tf.constant(seed), (index * len(leaves) + leaf) * num_draws + draw]),
        )
        for leaf, distribution in enumerate(leaves)
    ]
    return tf.nest.pack_sequence_as(distributions, samples)
