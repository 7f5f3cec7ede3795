"""A run that is killed and started again ends like one that was not, to the last bit."""

import pytest

from tests.helpers import contract, tiny_runs

# As large as in real runs: a race between operations may be lost only when they take long.
_SIZES = {
    **{"BEHAVIOR_STEPS": 4000, "STEPS": 3000, "EVAL_INTERVAL": 500, "BATCH_SIZE": 256},
    **{"train.log_interval": 100, "train.checkpoint_interval": 50},
}
_NETWORKS = [
    "create_offset_network.fc_layer_params = (256, 256)",
    "create_actor_network.fc_layer_params = (256, 256)",
]


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0])
def test_twenty_kills_change_nothing(tmp_path, pendulum_data, seed):
    options = {**_SIZES, "bindings": _NETWORKS}
    runs = {}
    for name, number in (("complete", 0), ("killed", 20)):
        arguments = tiny_runs.train_arguments(tmp_path / name, pendulum_data, **options)
        runs[name] = contract.run_killed(tmp_path / name, number, arguments, seed)
    assert not runs["complete"]
    kills = runs["killed"]
    print("\n".join(kills))
    assert len(kills) == 20
    assert any("wrote" in kill and "/checkpoints/" in kill for kill in kills)
    assert "wrote policies/" in kills[-1]
    contract.assert_same_run(tmp_path / "complete", tmp_path / "killed")
