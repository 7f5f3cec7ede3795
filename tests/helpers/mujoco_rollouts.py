"""Rollouts of fixed actions in the MuJoCo tasks; makes those that tests compare with.

Run from the repository with Gymnasium 0.29 and MuJoCo 2.3, on Python before 3.12:

python -m tests.helpers.mujoco_rollouts
"""

import pathlib

import numpy as np

from fbrc_agent.environments import gymnasium_environment

PATH = pathlib.Path(__file__).with_name("mujoco_rollouts.npz")
ENVIRONMENTS = ("Hopper-v4", "HalfCheetah-v4", "Walker2d-v4")
KEYS = ("positions", "velocities", "actions", "states", "rewards")
_STEPS = 50


def roll_out(environment_id, positions, velocities, actions):
    """Returns the states [N, S] after each action and the rewards [N], terminal or not."""
    environment = gymnasium_environment.make(environment_id).unwrapped
    environment.reset(seed=0)
    environment.set_state(positions, velocities)
    states, rewards = [], []
    for action in actions:
        rewards.append(environment.step(action)[1])
        states.append(np.concatenate([environment.data.qpos, environment.data.qvel]))
    environment.close()
    return {"states": np.array(states), "rewards": np.array(rewards)}


def _make(environment_id):
    environment = gymnasium_environment.make(environment_id).unwrapped
    environment.reset(seed=0)
    size = environment.action_space.shape[0]
    start = {
        "positions": environment.data.qpos.copy(),
        "velocities": environment.data.qvel.copy(),
        "actions": np.random.default_rng(0).uniform(-1, 1, [_STEPS, size]),
    }
    return {**start, **roll_out(environment_id, **start)}


if __name__ == "__main__":
    arrays = {f"{name}/{key}": array for name in ENVIRONMENTS for key, array in _make(name).items()}
    np.savez_compressed(PATH, **arrays)
