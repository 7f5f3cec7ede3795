import numpy as np
import pytest
import tensorflow as tf
import tensorflow_probability as tfp

from fbrc_agent.utils import sampling

NORMALS = {leaf: tfp.distributions.Normal(tf.zeros([4]), 1.0) for leaf in "ab"}


def drawn(seed=7, step=3, draw=0, compiled=False):
    function = sampling.sample
    if compiled:
        function = tf.function(function)
    sample = function(NORMALS, seed, tf.Variable(step, dtype=tf.int64), draw, 2)
    return np.concatenate([sample["a"], sample["b"]])


@pytest.mark.parametrize("compiled", [False, True])
def test_the_same_key_gives_the_same_sample(compiled):
    np.testing.assert_array_equal(drawn(compiled=compiled), drawn())


@pytest.mark.parametrize("other", [{"seed": 8}, {"step": 4}, {"draw": 1}, {"step": 2, "draw": 1}])
def test_another_key_gives_another_sample(other):
    assert not np.any(drawn(**other) == drawn())


def test_leaves_differ():
    sample = drawn()
    assert not np.any(sample[:4] == sample[4:])


def test_samples_of_a_million_steps_are_normal():
    steps = tf.range(0, 1_000_000, 250, dtype=tf.int64)
    samples = tf.map_fn(
        lambda step: sampling.sample(NORMALS["a"], 0, step, 1, 5),
        steps,
        fn_output_signature=tf.float32,
    ).numpy()
    assert abs(samples.mean()) < 4 / np.sqrt(samples.size)
    assert abs(samples.std() - 1) < 4 / np.sqrt(2 * samples.size)
    correlation = np.corrcoef(samples[:-1].ravel(), samples[1:].ravel())[0, 1]
    assert abs(correlation) < 4 / np.sqrt(samples.size)


def test_without_a_seed_samples_are_fresh():
    assert not np.any(drawn(seed=None) == drawn(seed=None))
