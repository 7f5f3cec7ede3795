"""Formats that keep each episode's last observation, each written by its own library."""

import gymnasium
import numpy as np
import pytest

from fbrc_agent.datasets import sources
from fbrc_agent.utils.errors import InputError
from tests.helpers import logs

BOX = gymnasium.spaces.Box(-np.inf, np.inf, (3,), np.float32)
ACTIONS = gymnasium.spaces.Box(-2, 1, (2,), np.float32)


# Minari.


@pytest.fixture(name="minari")
def _minari(tmp_path, monkeypatch):
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "minari"))
    return pytest.importorskip("minari")


def create(
    minari,
    episodes,
    observation=None,
    space=BOX,
    action_space=ACTIONS,
    name="test/log-v0",
    **arguments,
):
    """Writes a data set with Minari itself; `observation` makes one of the arrays of an episode."""
    buffers = [
        minari.data_collector.EpisodeBuffer(
            id=index,
            observations=e.observations if observation is None else observation(e.observations),
            actions=e.actions,
            rewards=list(e.rewards),
            terminations=list(e.terminals),
            truncations=list(e.timeouts),
        )
        for index, e in enumerate(episodes)
    ]
    minari.create_dataset_from_buffers(
        name,
        buffers,
        observation_space=space,
        action_space=action_space,
        author="x",
        author_email="x",
        code_permalink="x",
        algorithm_name="x",
        description="x",
        **arguments,
    )


@pytest.mark.parametrize("data_format", ["hdf5", "arrow"])
def test_minari_gives_every_step(tmp_path, minari, data_format):
    if data_format == "arrow":
        pytest.importorskip("pyarrow")
    create(minari, logs.make_episodes(), data_format=data_format)
    folder = tmp_path / "minari/test/log-v0"
    paths = [str(folder), str(folder / "data")]
    if data_format == "hdf5":
        paths.append(str(folder / "data/main_data.hdf5"))
    for source in ("minari:test/log-v0", *paths):
        data = sources.load_dataset(source)
        logs.assert_same(data, logs.transitions(logs.make_episodes()))
        assert data.source == source
        assert data.num_rows == 9
        np.testing.assert_array_equal(data.action_minimum, [-2, -2])
        returns = [e.rewards.sum() for e in logs.make_episodes()]
        np.testing.assert_allclose(data.episode_returns, returns, rtol=1e-6)


def test_minari_dict_observations_are_joined_by_name(minari):
    def split(observations):
        return {
            "position": observations[:, :1],
            "velocity": observations[:, 1:],
            "goal": observations,
        }

    parts = {"position": (1,), "velocity": (2,), "goal": (3,)}
    boxes = {key: gymnasium.spaces.Box(-9, 9, size, np.float32) for key, size in parts.items()}
    create(minari, logs.make_episodes(), split, gymnasium.spaces.Dict(boxes))
    with pytest.raises(InputError, match="dicts of .*load_dataset.columns = {'observations': "):
        sources.load_dataset("minari:test/log-v0")
    columns = {"observations": ("position", "velocity")}
    data = sources.load_dataset("minari:test/log-v0", columns=columns)
    logs.assert_same(data, logs.transitions(logs.make_episodes()))


def test_minari_discrete_actions_are_named(minari):
    episodes = logs.make_episodes()
    for episode in episodes:
        episode.actions = np.zeros(len(episode.rewards), np.int64)
    create(minari, episodes, action_space=gymnasium.spaces.Discrete(3))
    with pytest.raises(InputError, match=r"Discrete\(3\), which is not supported; discrete"):
        sources.load_dataset("minari:test/log-v0")


def test_minari_episode_without_its_last_observation_is_refused(minari):
    episodes = logs.make_episodes()
    episodes[1].observations = episodes[1].observations[:-1]
    create(minari, episodes)
    with pytest.raises(InputError, match="episode 1 has arrays of lengths observations 4, actions"):
        sources.load_dataset("minari:test/log-v0")


def test_minari_data_set_that_does_not_exist_is_refused(minari, monkeypatch):
    monkeypatch.setenv("MINARI_REMOTE", "hf://no-such-place")
    with pytest.raises(InputError, match="minari:no/such-v0: cannot be read as a Minari data set"):
        sources.load_dataset("minari:no/such-v0")


# TF-Agents.


def write_tfrecords(path, episodes, is_batched=False):
    """Writes what a driver of TF-Agents gives its observers, with `TFRecordObserver`."""
    tf = pytest.importorskip("tensorflow")
    if np.lib.NumpyVersion(np.__version__) >= "2.0.0":
        pytest.skip("TF-Agents 0.19 cannot write TFRecords under NumPy 2.")
    from tf_agents.specs import tensor_spec
    from tf_agents.trajectories import time_step as ts
    from tf_agents.trajectories import trajectory
    from tf_agents.utils import example_encoding_dataset

    action_spec = tensor_spec.BoundedTensorSpec([2], tf.float32, [-2, -1], [1, 1], "action")
    steps = ts.time_step_spec(tf.TensorSpec([3], tf.float32, "observation"))
    spec = trajectory.Trajectory(
        steps.step_type,
        steps.observation,
        action_spec,
        (),
        steps.step_type,
        steps.reward,
        steps.discount,
    )
    observer = example_encoding_dataset.TFRecordObserver(str(path), spec, py_mode=not is_batched)
    for episode in episodes:
        time_steps = [ts.restart(episode.observations[0])]
        for t, reward in enumerate(episode.rewards):
            observation = episode.observations[t + 1]
            if episode.terminals[t]:
                time_steps.append(ts.termination(observation, reward))
            elif episode.timeouts[t]:
                time_steps.append(ts.truncation(observation, reward))
            else:
                time_steps.append(ts.transition(observation, reward))
        is_over = episode.terminals[-1] or episode.timeouts[-1]
        following = [*time_steps[1:], *([ts.restart(np.zeros(3, np.float32))] if is_over else [])]
        actions = [*episode.actions, np.zeros(2, np.float32)]
        for step, action, following_step in zip(time_steps, actions, following):
            frame = trajectory.Trajectory(
                step.step_type,
                step.observation,
                action,
                (),
                following_step.step_type,
                np.asarray(following_step.reward, np.float32),
                np.asarray(following_step.discount, np.float32),
            )
            if is_batched:
                frame = tf.nest.map_structure(lambda x: np.asarray(x)[None], frame)
                observer(frame)
            else:
                observer(frame)
    observer.flush()
    observer.close()
    return str(path)


@pytest.mark.parametrize("is_batched", [False, True])
def test_trajectories_give_every_step_whose_next_frame_is_there(tmp_path, is_batched):
    episodes = logs.make_episodes()
    path = write_tfrecords(tmp_path / "log", episodes, is_batched)
    expected = logs.transitions(episodes)  # But for the last: the frame after it is not written.
    expected = {name: array[:-1] for name, array in expected.items()}
    for source in (path, str(tmp_path)):
        data = sources.load_dataset(source)
        logs.assert_same(data, expected, (3, 4, 1))
        np.testing.assert_array_equal(data.next_observations[2], episodes[0].observations[3])
        np.testing.assert_array_equal(data.action_minimum, [-2, -1])
        returns = [e.rewards.sum() for e in episodes[:2]]
        np.testing.assert_allclose(data.episode_returns, returns, rtol=1e-6)


def test_tfrecords_without_their_specs_or_damaged_are_refused(tmp_path):
    path = write_tfrecords(tmp_path / "log.tfrecord", logs.make_episodes())
    content = (tmp_path / "log.tfrecord").read_bytes()
    for damaged in (b"words", content[:-5], content[:40] + b"\xff" * 30 + content[70:]):
        (tmp_path / "log.tfrecord").write_bytes(damaged)
        with pytest.raises(InputError, match="cannot be read as TF-Agents' TFRecords"):
            sources.load_dataset(path)
    (tmp_path / "log.tfrecord").write_bytes(b"")
    with pytest.raises(InputError, match="is empty"):
        sources.load_dataset(path)
    (tmp_path / "log.tfrecord.spec").write_bytes(b"words")
    with pytest.raises(InputError, match="cannot be read as TF-Agents' TFRecords"):
        sources.load_dataset(path)
    (tmp_path / "log.tfrecord.spec").unlink()
    with pytest.raises(InputError, match="log.tfrecord.spec, is missing"):
        sources.load_dataset(path)


# RLDS.


def prepare_rlds(tfds, folder, episodes, action_dtype=np.float32):
    """Writes a data set with TensorFlow Datasets itself; returns its folder."""

    class Log(tfds.core.GeneratorBasedBuilder, skip_registration=True):
        """A log."""

        VERSION = tfds.core.Version("1.0.0")

        def _info(self):
            steps = {
                "observation": tfds.features.Tensor(shape=(3,), dtype=np.float32),
                "action": tfds.features.Tensor(shape=(2,), dtype=action_dtype),
                "reward": np.float32,
                "discount": np.float32,
                "is_first": np.bool_,
                "is_last": np.bool_,
                "is_terminal": np.bool_,
            }
            features = tfds.features.FeaturesDict({"steps": tfds.features.Dataset(steps)})
            return self.dataset_info_from_configs(features=features)

        def _split_generators(self, _):
            return {"train": self._generate_examples()}

        def _generate_examples(self):
            for index, episode in enumerate(episodes):
                length = len(episode.rewards)
                yield index, {"steps": [self._step(episode, t, length) for t in range(length + 1)]}

        def _step(self, episode, t, length):
            is_last = t == length
            return {
                "observation": episode.observations[t],
                "action": np.zeros(2, action_dtype)
                if is_last
                else episode.actions[t].astype(action_dtype),
                "reward": np.nan if is_last else episode.rewards[t],  # Not valid, says RLDS.
                "discount": 1.0,
                "is_first": t == 0,
                "is_last": is_last,
                "is_terminal": bool(is_last and episode.terminals[-1]),
            }

    builder = Log(data_dir=str(folder))
    builder.download_and_prepare()
    return builder.data_dir


def test_rlds_gives_every_step(tmp_path):
    tfds = pytest.importorskip("tensorflow_datasets")
    episodes = logs.make_episodes()
    data = sources.load_dataset(str(prepare_rlds(tfds, tmp_path, episodes)))
    order = [  # TensorFlow Datasets shuffles episodes.
        next(i for i, e in enumerate(episodes) if (e.observations[0] == start).all())
        for start in data.start_observations
    ]
    assert sorted(order) == [0, 1, 2]
    expected = logs.transitions([episodes[i] for i in order])
    logs.assert_same(data, expected, [logs.LENGTHS[i] for i in order])
    assert data.num_rows == 9


def test_rlds_discrete_actions_are_named(tmp_path):
    tfds = pytest.importorskip("tensorflow_datasets")
    folder = prepare_rlds(tfds, tmp_path, logs.make_episodes(), np.int64)
    with pytest.raises(InputError, match="which is not supported; discrete"):
        sources.load_dataset(str(folder))


def test_rlds_of_an_unknown_name_is_refused():
    pytest.importorskip("tensorflow_datasets")
    with pytest.raises(InputError, match="tfds:no_such_data: cannot be read as an RLDS data set"):
        sources.load_dataset("tfds:no_such_data")
