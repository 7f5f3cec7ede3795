import numpy as np
import pytest
import tensorflow as tf
from tf_agents.agents import data_converter
from tf_agents.agents.ddpg import critic_network
from tf_agents.agents.sac import sac_agent
from tf_agents.networks import actor_distribution_network
from tf_agents.train import learner
from tf_agents.train.utils import train_utils
from tf_agents.trajectories import time_step as ts
from tf_agents.utils import nest_utils

from fbrc_agent.datasets import batches, checks, offline_data
from fbrc_agent.utils.errors import InputError


def make_data(size=10):
    """Transition i has its number in every array; every third one is terminal."""
    rows = np.arange(size, dtype=np.float32)
    return offline_data.OfflineData.from_arrays(
        observations=np.stack([rows, rows + 0.25, -rows], axis=1),
        actions=np.stack([rows, rows / 2], axis=1),
        rewards=rows * 10,
        next_observations=np.stack([rows + 1, rows + 0.5, 2 * rows], axis=1),
        discounts=(rows % 3 != 2),
        action_bounds=(0, size),
    )


def take(tf_dataset, count):
    return [experience for experience, _ in tf_dataset.take(count).as_numpy_iterator()]


def take_rows(tf_dataset, count):
    """The numbers of the transitions in each of the next batches, [count, B]."""
    return np.array([batch.observation[:, 0, 0] for batch in take(tf_dataset, count)], int)


@pytest.mark.parametrize("batch_size", [1, 4, 5, 10])
def test_every_epoch_visits_each_transition_once(batch_size):
    rows = take_rows(batches.make_tf_dataset(make_data(), batch_size, seed=3), 60 // batch_size)
    epochs = np.sort(rows.reshape(6, 10), axis=1)
    np.testing.assert_array_equal(epochs, np.tile(np.arange(10), (6, 1)))


def test_epochs_differ_in_order():
    epochs = take_rows(batches.make_tf_dataset(make_data(100), 100, seed=0), 20)
    assert len(np.unique(epochs, axis=0)) == 20


def test_same_seed_gives_same_batches_and_other_seed_others():
    rows = [take_rows(batches.make_tf_dataset(make_data(100), 8, seed), 5) for seed in (7, 7, 8)]
    np.testing.assert_array_equal(rows[0], rows[1])
    assert (rows[0] != rows[2]).mean() > 0.9


@pytest.mark.parametrize("start", [1, 2, 3, 7])
def test_start_skips_batches(start):
    data = make_data()
    started = batches.make_tf_dataset(data, 4, seed=5, start=start)
    skipped = batches.make_tf_dataset(data, 4, seed=5).skip(start)
    for first, second in zip(take(started, 5), take(skipped, 5)):
        tf.nest.map_structure(np.testing.assert_array_equal, first, second)


def test_start_far_beyond_32_bits_is_an_epoch_like_any_other():
    # 10**12 batches of 4 rows are whole epochs of 10 rows, and so are the next 5.
    rows = take_rows(batches.make_tf_dataset(make_data(), 4, seed=5, start=10**12), 5)
    np.testing.assert_array_equal(np.sort(rows.reshape(2, 10)), [range(10), range(10)])


def test_batches_are_uniform_samples():
    # The mean row number of a batch of B rows out of N, drawn without replacement, has the variance
    # (N^2 - 1) / 12 / B * (N - B) / (N - 1); the ratio of 2500 batches is within 15% of 1 with a
    # probability of 1 - 1e-7 (its standard error is sqrt(2 / 2500) = 2.8%).
    size, batch_size = 5000, 50
    rows = take_rows(batches.make_tf_dataset(make_data(size), batch_size, seed=0), 2500)
    variance = (size**2 - 1) / 12 / batch_size * (size - batch_size) / (size - 1)
    assert rows.mean(axis=1).var() / variance == pytest.approx(1.0, abs=0.15)


def test_orders_of_neighboring_seeds_and_epochs_are_not_correlated():
    size = 20000
    orders = np.concatenate(
        [take_rows(batches.make_tf_dataset(make_data(size), size, seed), 3) for seed in range(3)]
    )
    correlations = np.corrcoef(orders)[np.triu_indices(9, k=1)]
    assert np.abs(correlations).max() < 5 / np.sqrt(size)


def test_transitions_are_the_rows_of_the_data():
    data = make_data()
    context = data_converter.DataContext(
        time_step_spec=data.time_step_spec, action_spec=data.action_spec, info_spec=()
    )
    convert = data_converter.AsTransition(context, squeeze_time_dim=True)
    batch, _ = next(iter(batches.make_tf_dataset(data, 10, seed=0)))
    transition = convert(batch)
    rows = transition.time_step.observation.numpy()[:, 0].astype(int)
    np.testing.assert_array_equal(np.sort(rows), range(10))
    np.testing.assert_array_equal(transition.time_step.observation, data.observations[rows])
    np.testing.assert_array_equal(transition.action_step.action, data.actions[rows])
    np.testing.assert_array_equal(transition.next_time_step.reward, data.rewards[rows])
    np.testing.assert_array_equal(transition.next_time_step.discount, data.discounts[rows])
    np.testing.assert_array_equal(
        transition.next_time_step.observation, data.next_observations[rows]
    )


def test_step_types_mark_the_terminal_transitions():
    batch = take(batches.make_tf_dataset(make_data(), 10, seed=0), 1)[0]
    terminal = batch.observation[:, 0, 0] % 3 == 2
    np.testing.assert_array_equal(batch.step_type[:, 0], np.full(10, ts.StepType.MID))
    expected = np.where(terminal, ts.StepType.LAST, ts.StepType.MID)
    np.testing.assert_array_equal(batch.next_step_type[:, 0], expected)
    np.testing.assert_array_equal(batch.step_type[:, 1], expected)


def make_shifted(data, shift):
    """The same transitions in arrays that begin `shift` numbers after where TensorFlow's do."""
    arrays = {}
    for name in ("observations", "actions", "rewards", "next_observations", "discounts"):
        array = getattr(data, name)
        memory = checks.empty_float32((array.size + shift,))
        arrays[name] = memory[shift:].reshape(array.shape)
        arrays[name][...] = array
    bounds = (data.action_minimum, data.action_maximum)
    return offline_data.OfflineData.from_arrays(**arrays, action_bounds=bounds), arrays


@pytest.mark.parametrize("shift", [0, 1])
def test_batches_do_not_depend_on_where_the_arrays_begin(shift):
    data = make_data(200)
    expected = take(batches.make_tf_dataset(data, 50, seed=0), 4)
    shifted = batches.make_tf_dataset(make_shifted(data, shift)[0], 50, seed=0)
    tf.nest.map_structure(np.testing.assert_array_equal, take(shifted, 4), expected)


def test_aligned_arrays_are_not_copied():
    data, arrays = make_shifted(make_data(200), 0)
    iterator = iter(batches.make_tf_dataset(data, 50, seed=0))
    for array in arrays.values():
        array[...] = 0.5
    batch, _ = next(iterator)
    for value in (batch.action, batch.reward, batch.discount):
        np.testing.assert_array_equal(value[:, 0], np.full_like(value[:, 0], 0.5))
    np.testing.assert_array_equal(batch.observation, np.full([50, 2, 3], 0.5))


@pytest.mark.parametrize("batch_size", [1, 7, 200])
def test_first_batch_is_that_of_the_dataset(batch_size):
    data = make_data(200)
    expected = take(batches.make_tf_dataset(data, batch_size, seed=3), 1)[0]
    batch = batches.first_batch(data, batch_size, seed=3)
    tf.nest.map_structure(np.testing.assert_array_equal, batch, expected)


def test_shapes_are_static():
    experience, rest = batches.make_tf_dataset(make_data(), 4, seed=0).element_spec
    assert rest == ()
    assert experience.observation == tf.TensorSpec([4, 2, 3], tf.float32)
    assert experience.action == tf.TensorSpec([4, 2, 2], tf.float32)
    for name in ("reward", "discount"):
        assert getattr(experience, name) == tf.TensorSpec([4, 2], tf.float32)
    for name in ("step_type", "next_step_type"):
        assert getattr(experience, name) == tf.TensorSpec([4, 2], tf.int32)
    assert experience.policy_info == ()


@pytest.mark.parametrize(
    "argument, value, message",
    [
        ("batch_size", 11, "batch_size is 11; .* at most 10, the number of transitions"),
        ("batch_size", 0, "batch_size is 0"),
        ("batch_size", 2.0, "batch_size is 2.0"),
        ("seed", -1, "seed is -1"),
        ("seed", 2**31, "seed is 2147483648"),
        ("seed", 1.5, "seed is 1.5"),
        ("seed", True, "seed is True"),
        ("seed", None, "seed is None"),
        ("start", -1, "start is -1"),
    ],
)
def test_argument_out_of_range_is_an_input_error(argument, value, message):
    arguments = {"batch_size": 4, "seed": 0, "start": 0, argument: value}
    with pytest.raises(InputError, match=message):
        batches.make_tf_dataset(make_data(), **arguments)
    with pytest.raises(InputError, match=message):
        batches.check_batches(make_data(), **arguments)


# Shards for a strategy: a worker's dataset yields the shards of its replicas in turn.


def take_shards(num_workers, num_replicas, batch_size, count, data, start=0):
    """The rows of each replica, [count, num_replicas, B / num_replicas]."""
    workers = []
    for worker in range(num_workers):
        context = tf.distribute.InputContext(num_workers, worker, num_replicas)
        shards = batches.make_tf_dataset(data, batch_size, 3, start, context)
        rows = take_rows(shards, count * num_replicas // num_workers)
        workers.append(rows.reshape(count, num_replicas // num_workers, -1))
    return np.concatenate(workers, axis=1)


SHARDS = [(1, 1), (1, 2), (2, 2), (2, 4), (1, 4)]


@pytest.mark.parametrize("num_workers, num_replicas", SHARDS)
@pytest.mark.parametrize("start", [0, 3])
def test_shards_of_a_batch_are_the_batch(num_workers, num_replicas, start):
    data = make_data(20)
    whole = take_rows(batches.make_tf_dataset(data, 8, 3, start), 7)
    shards = take_shards(num_workers, num_replicas, 8, 7, data, start)
    assert shards.shape == (7, num_replicas, 8 // num_replicas)
    np.testing.assert_array_equal(shards.reshape(7, 8), whole)


@pytest.mark.parametrize("num_workers, num_replicas", SHARDS[1:])
def test_no_transition_is_in_two_shards_of_an_epoch(num_workers, num_replicas):
    shards = take_shards(num_workers, num_replicas, 8, 5, make_data(40))
    np.testing.assert_array_equal(np.sort(shards.ravel()), range(40))


def test_batch_that_cannot_be_split_evenly_is_an_input_error():
    context = tf.distribute.InputContext(num_replicas_in_sync=3)
    with pytest.raises(InputError, match="batch_size is 4; under a strategy of 3 replicas .* of 3"):
        batches.make_tf_dataset(make_data(), 4, 0, input_context=context)
    with pytest.raises(InputError, match="batch_size is 4; under a strategy of 3 replicas .* of 3"):
        batches.check_batches(make_data(), 4, 0, num_replicas=3)


# TF-Agents' own agent and learner.


def make_sac_agent(data, train_step):
    networks_specs = (data.time_step_spec.observation, data.action_spec)
    optimizers = [tf.keras.optimizers.legacy.Adam() for _ in range(3)]
    agent = sac_agent.SacAgent(
        data.time_step_spec,
        data.action_spec,
        critic_network=critic_network.CriticNetwork(networks_specs, joint_fc_layer_params=(4,)),
        actor_network=actor_distribution_network.ActorDistributionNetwork(
            *networks_specs, fc_layer_params=(4,)
        ),
        actor_optimizer=optimizers[0],
        critic_optimizer=optimizers[1],
        alpha_optimizer=optimizers[2],
        train_step_counter=train_step,
    )
    agent.initialize()
    return agent


def test_sac_agent_trains_on_a_batch():
    data = make_data()
    agent = make_sac_agent(data, train_utils.create_train_step())
    batch, _ = next(iter(batches.make_tf_dataset(data, 4, seed=0)))
    assert nest_utils.is_batched_nested_tensors(
        batch, agent.collect_data_spec._replace(policy_info=()), num_outer_dims=2
    )
    assert np.isfinite(agent.train(batch).loss)


def test_learner_runs_on_the_dataset(tmp_path):
    data = make_data()
    train_step = train_utils.create_train_step()
    agent = make_sac_agent(data, train_step)
    sac_learner = learner.Learner(
        str(tmp_path),
        train_step,
        agent,
        experience_dataset_fn=lambda: batches.make_tf_dataset(data, 4, seed=0),
    )
    loss = sac_learner.run(iterations=2)
    assert train_step.numpy() == 2
    assert np.isfinite(loss.loss)
