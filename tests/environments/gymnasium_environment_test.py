"""Tests of fbrc_agent.environments.gymnasium_environment."""

import subprocess
import sys

import gymnasium
import numpy as np
import pytest
from tf_agents.environments import utils as environment_utils

from fbrc_agent.environments import gymnasium_environment
from fbrc_agent.utils.errors import InputError
from tests.helpers import mujoco_rollouts


class _ThreeSteps(gymnasium.Env):
    """Episodes of three steps: a terminal state after an action >= 0, else a time limit."""

    observation_space = gymnasium.spaces.Box(-np.inf, np.inf, (1,))
    action_space = gymnasium.spaces.Box(np.array([-1.0, -2.0]), np.array([3.0, 4.0]))

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self._steps = 0
        return np.array([self.np_random.uniform()]), {}

    def step(self, action):
        self._steps += 1
        last = self._steps == 3
        terminated = last and action[0] >= 0.0
        return np.zeros(1), 0.5 * self._steps, terminated, last and not terminated, {}


def _register(name, make):
    gymnasium.register(name, entry_point=make)
    return name


@pytest.fixture(scope="module", name="three_steps")
def _three_steps():
    yield _register("FbrcThreeSteps-v0", _ThreeSteps)
    del gymnasium.registry["FbrcThreeSteps-v0"]


@pytest.mark.parametrize("environment_id", ["Pendulum-v1", "Hopper-v4"])
def test_tf_agents_accepts_real_environments(environment_id):
    environment = gymnasium_environment.GymnasiumEnvironment(environment_id, seed=0)
    environment_utils.validate_py_environment(environment, episodes=2)


def test_specs_are_float32_with_the_environments_bounds(three_steps):
    environment = gymnasium_environment.GymnasiumEnvironment(three_steps)
    action_spec = environment.action_spec()
    assert environment.observation_spec().name == "observation"
    assert environment.observation_spec().dtype == action_spec.dtype == np.float32
    assert action_spec.name == "action"
    np.testing.assert_array_equal(action_spec.minimum, [-1.0, -2.0])
    np.testing.assert_array_equal(action_spec.maximum, [3.0, 4.0])


@pytest.mark.parametrize("action, discount", [(0.5, 0.0), (-0.5, 1.0)])
def test_only_a_terminal_state_has_discount_zero(three_steps, action, discount):
    environment = gymnasium_environment.GymnasiumEnvironment(three_steps)
    action = np.full(2, action, np.float32)
    first = environment.reset()
    steps = [environment.step(action) for _ in range(3)]
    assert first.is_first()
    assert [step.is_last() for step in steps] == [False, False, True]
    assert [float(step.reward) for step in steps] == [0.5, 1.0, 1.5]
    assert [float(step.discount) for step in steps] == [1.0, 1.0, discount]
    assert environment.step(action).is_first()


def test_a_seed_repeats_the_first_observation_and_not_the_second(three_steps):
    environment = gymnasium_environment.GymnasiumEnvironment(three_steps, seed=3)
    first, second = environment.reset().observation, environment.reset().observation
    environment.seed(3)
    np.testing.assert_array_equal(environment.reset().observation, first)
    assert first != second


@pytest.mark.parametrize("environment_id", ["NoSuch-v0", "no such", "Hopper-v99"])
def test_an_unknown_id_is_an_input_error_that_names_it(environment_id):
    with pytest.raises(InputError, match=f"'{environment_id}'"):
        gymnasium_environment.GymnasiumEnvironment(environment_id)


def test_sizes_are_those_of_observations_and_actions():
    assert gymnasium_environment.sizes("Hopper-v4") == (11, 3)


@pytest.mark.parametrize("environment_id", mujoco_rollouts.ENVIRONMENTS)
def test_the_robots_move_as_with_mujoco_2(environment_id):
    """As D4RL's data and scores have it; MuJoCo 3.5 moves Hopper by 0.03 and more."""
    with np.load(mujoco_rollouts.PATH) as file:
        stored = {key: file[f"{environment_id}/{key}"] for key in mujoco_rollouts.KEYS}
    start = {key: stored.pop(key) for key in ("positions", "velocities", "actions")}
    for key, array in mujoco_rollouts.roll_out(environment_id, **start).items():
        np.testing.assert_allclose(array, stored[key], rtol=0, atol=3e-7)


@pytest.mark.skipif(
    not gymnasium.__version__.startswith("1."), reason="Gymnasium 0.29 has no -v5 robots"
)
def test_v5_robots_are_made():
    assert gymnasium_environment.sizes("Hopper-v5") == (11, 3)


def test_v4_robots_are_made_without_a_warning(recwarn):
    gymnasium_environment.make("Hopper-v4").close()
    assert recwarn.list == []


def test_discrete_actions_are_an_input_error():
    with pytest.raises(InputError, match="action space of .* 'CartPole-v1' is Discrete"):
        gymnasium_environment.make("CartPole-v1")


def test_unbounded_actions_are_an_input_error():
    class Unbounded(_ThreeSteps):
        action_space = gymnasium.spaces.Box(-np.inf, np.inf, (1,))

    _register("FbrcUnbounded-v0", Unbounded)
    with pytest.raises(InputError, match="finite bounds"):
        gymnasium_environment.make("FbrcUnbounded-v0")


_BROKEN_MUJOCO_PY = """
import sys
sys.path.insert(0, sys.argv[1])
import fbrc_agent
fbrc_agent.GymnasiumEnvironment("Hopper-v4").reset()
assert "mujoco_py" not in sys.modules
try:
    import mujoco_py
except Exception as error:
    print("broken as before:", error)
"""


def test_a_mujoco_py_without_mujoco_does_no_harm(tmp_path):
    (tmp_path / "mujoco_py.py").write_text("raise Exception('no MuJoCo 2.1')\n")
    completed = subprocess.run(
        [sys.executable, "-c", _BROKEN_MUJOCO_PY, str(tmp_path)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert completed.stdout == "broken as before: no MuJoCo 2.1\n", completed.stderr
