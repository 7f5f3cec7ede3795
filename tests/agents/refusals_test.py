"""What the agents refuse: each message names the argument and shows what is given and wanted."""

import functools

import gin
import pytest
import tensorflow as tf
from tf_agents.agents.ddpg import critic_network as ddpg_critic
from tf_agents.networks import sequential
from tf_agents.policies import actor_policy
from tf_agents.specs import tensor_spec
from tf_agents.trajectories import time_step as ts

from fbrc_agent.agents import behavior as behavior_agent
from fbrc_agent.agents import fbrc as fbrc_agent
from fbrc_agent.networks import critic_network
from fbrc_agent.policies import export
from fbrc_agent.utils import errors
from tests.agents import networks_test as networks

KIND = networks.KINDS["CriticNetwork"]
SPEC = KIND.observation, KIND.action
OTHER_OBSERVATION = tensor_spec.BoundedTensorSpec([7], tf.float32, -1, 1)
OTHER_ACTION = networks.box(-1, 1, 3)
UNBOUNDED = tensor_spec.TensorSpec([2], tf.float32, "action")
DISCRETE = tensor_spec.BoundedTensorSpec([2], tf.int32, 0, 3)


@functools.cache
def behavior():
    return networks.make_behavior(KIND)


def agent(**changes):
    mu = changes.pop("behavior_network", None) or behavior()
    return networks.make_agent(KIND, mu, **changes)


def agent_over(time_step_spec, action_spec):
    """An agent whose networks do not matter: its specs are refused first."""
    nothing = [None] * 5
    return fbrc_agent.FbrcAgent(time_step_spec, action_spec, *nothing, behavior_network=behavior())


def behavior_agent_of(mu, action_spec=KIND.action):
    return behavior_agent.BehaviorAgent(
        ts.time_step_spec(KIND.observation), action_spec, mu, tf.keras.optimizers.Adam()
    )


def critic_over(*spec):
    return networks.layered_critic(spec)


def ends_with(*layers):
    """A critic whose values are those of `layers` instead of `[B]`."""
    given = networks.sequential_critic(SPEC).layers[:-1]
    return sequential.Sequential([*given, *layers], name="Mine")


def same_critic_twice():
    critic = critic_over(*SPEC)
    return agent(critic_network=critic, critic_network_2=critic)


def critic_as_its_own_target():
    critic = critic_over(*SPEC)
    return agent(
        critic_network=critic,
        critic_network_2=critic_over(*SPEC),
        target_critic_network=critic,
    )


NETWORK_CASES = {
    "critic over other observations": (
        lambda: agent(critic_network=critic_over(OTHER_OBSERVATION, KIND.action)),
        ["critic_network 'CriticNetwork'", "shape (7,) float32", "shape (4,) float32"],
    ),
    "critic over other actions": (
        lambda: agent(critic_network=critic_over(KIND.observation, OTHER_ACTION)),
        ["critic_network 'CriticNetwork'", "shape (3,) float32", "shape (2,) float32"],
    ),
    "critic over observations alone": (
        lambda: agent(critic_network=networks.tanh_actor(*SPEC)),
        ["critic_network 'Actor", "spec shape (4,) float32", "('shape (4,) float32', 'shape (2"],
    ),
    "second target over other actions": (
        lambda: agent(
            critic_network_2=critic_over(*SPEC),
            target_critic_network_2=critic_over(KIND.observation, OTHER_ACTION),
        ),
        ["target_critic_network_2 'Crit", "shape (3,) float32", "shape (2,) float32"],
    ),
    "critic with values [B, 1]": (
        lambda: agent(critic_network=ends_with()),
        ["critic_network 'Mine'", "returns (3, 1) float32", "shape (3,)"],
    ),
    "critic with one value for the batch": (
        lambda: agent(critic_network=ends_with(tf.keras.layers.Lambda(tf.reduce_mean))),
        ["critic_network 'Mine'", "returns () float32", "shape (3,)"],
    ),
    "critic that is a Keras model": (
        lambda: agent(critic_network=networks.functional_critic(SPEC).layers[0]),
        [
            "critic_network is <",
            "must be a TF-Agents network",
            "Functional",
            "sequential.Sequential",
        ],
    ),
    "no critic": (
        lambda: agent(critic_network=None),
        ["critic_network is None; it must be a TF-Agents network"],
    ),
    "functional Keras critic without a second": (
        lambda: agent(critic_network=networks.functional_critic(SPEC)),
        ["critic_network 'FunctionalCritic' has weights already", "give critic_network_2"],
    ),
    "the same critic twice": (
        same_critic_twice,
        ["critic_network_2 and critic_network are the same network", "'CriticNetwork'"],
    ),
    "critic as its own target": (
        critic_as_its_own_target,
        ["critic_network", "target_critic_network", "shares weights"],
    ),
    "target of other layers": (
        lambda: agent(target_critic_network=ddpg_critic.CriticNetwork(SPEC)),
        ["do not match between Q network and target", "shape=(4, 8)", "shape=(6, 1)"],
    ),
    "critic that wraps another mu": (
        lambda: agent(
            critic_network=critic_network.BehaviorRegularizedCriticNetwork(
                critic_over(*SPEC), networks.tanh_actor(*SPEC)
            )
        ),
        ["critic_network wraps", "'ActorDistributionNetwork'", "'MixtureBehaviorNetwork'"],
    ),
    "actor over other observations": (
        lambda: agent(actor_network=networks.tanh_actor(OTHER_OBSERVATION, KIND.action)),
        ["actor_network 'Actor", "shape (7,) float32", "shape (4,) float32"],
    ),
    "actor of other actions": (
        lambda: agent(actor_network=networks.tanh_actor(KIND.observation, OTHER_ACTION)),
        ["actor_network output spec", "shape=(3,)", "shape=(2,)"],
    ),
    "time steps that are observations": (
        lambda: agent_over(KIND.observation, KIND.action),
        ["time_step_spec is ", "shape=(4,)", "; it must be a TimeStep"],
    ),
    "unbounded actions": (
        lambda: agent_over(ts.time_step_spec(KIND.observation), UNBOUNDED),
        ["action_spec holds TensorSpec(shape=(2,)", "must be a nest of BoundedTensorSpec"],
    ),
    "mixture over unbounded actions": (
        lambda: networks.mixture(KIND.observation, UNBOUNDED),
        ["output_tensor_spec is TensorSpec(shape=(2,)", "must be one floating BoundedTensorSpec"],
    ),
    "mixture over a nest of actions": (
        lambda: networks.mixture(KIND.observation, networks.ACTIONS),
        ["output_tensor_spec is {", "must be one floating Bounded", "'steer'", "'pedals'"],
    ),
}

# Both agents ask the same of mu.
BEHAVIOR_CASES = {
    "mu over other observations": (
        lambda: networks.mixture(OTHER_OBSERVATION, KIND.action),
        ["behavior_network 'Mixture", "shape (7,) float32", "shape (4,) float32"],
    ),
    "mu over float64 observations": (
        lambda: networks.mixture(
            tensor_spec.BoundedTensorSpec([4], tf.float64, -1, 1), KIND.action
        ),
        ["behavior_network 'Mixture", "shape (4,) float64", "shape (4,) float32"],
    ),
    "mu of other actions": (
        lambda: networks.mixture(KIND.observation, OTHER_ACTION),
        ["behavior_network 'Mixture", "shape (2,) float32", "event_shape=[3]"],
    ),
    "squashed normal of other actions": (
        lambda: networks.tanh_actor(KIND.observation, OTHER_ACTION),
        ["behavior_network 'Actor", "shape (2,) float32", "SquashToSpecNormal"],
    ),
    "mu of a nest of actions": (
        lambda: networks.tanh_actor(KIND.observation, networks.ACTIONS),
        ["behavior_network 'Actor", "shape (2,) float32", "'steer'"],
    ),
    "mu that returns actions": (
        lambda: sequential.Sequential([tf.keras.layers.Dense(2)], SPEC[0], "Deterministic"),
        ["behavior_network 'Deterministic' returns ", "it must return distributions"],
    ),
    "recurrent mu": (
        lambda: networks.recurrent_actor(*SPEC),
        ["behavior_network 'ActorDistributionRnnNetwork'", "network_state_0", "stateless"],
    ),
    "mu that is a Keras model": (
        lambda: tf.keras.Sequential([tf.keras.layers.Dense(2)]),
        ["behavior_network is <", "must be a TF-Agents network", "sequential.Sequential"],
    ),
}


def message_of(error, function):
    with pytest.raises(error) as caught:
        function()
    return str(caught.value)


def assert_says(message, parts):
    missing = [part for part in parts if part not in message]
    assert not missing, f"{missing} not in: {message}"


@pytest.mark.parametrize("name", NETWORK_CASES)
def test_networks_and_specs(name):
    make, parts = NETWORK_CASES[name]
    assert_says(message_of(ValueError, make), parts)


@pytest.mark.parametrize("name", BEHAVIOR_CASES)
@pytest.mark.parametrize(
    "make_agent",
    [lambda mu: agent(behavior_network=mu), behavior_agent_of],
    ids=["Fbrc", "Behavior"],
)
def test_behavior_networks(name, make_agent):
    make, parts = BEHAVIOR_CASES[name]
    mu = make()
    assert_says(message_of(ValueError, lambda: make_agent(mu)), parts)


def test_discrete_actions_as_sac_says_it():
    message = message_of(
        NotImplementedError, lambda: agent_over(ts.time_step_spec(KIND.observation), DISCRETE)
    )
    assert_says(message, ["does not currently support discrete actions", "dtype=tf.int32"])


def test_discrete_actions_of_the_behavior_agent():
    message = message_of(ValueError, lambda: behavior_agent_of(behavior(), DISCRETE))
    assert_says(message, ["behavior_network", "shape (2,) int32", "dtype=float32"])


# Experience. Nests, types and sequence lengths are TF-Agents' own messages.


@functools.cache
def agents():
    return agent(), networks.make_behavior_agent(KIND, behavior())


def changed(**fields):
    good = networks.experience(KIND)
    return good._replace(**{name: change(getattr(good, name)) for name, change in fields.items()})


EXPERIENCE_CASES = {
    "nest": (
        lambda: changed(observation=lambda x: {"camera": x}),
        ValueError,
        ["not have matching structures", "'observation': {'camera': .}", "'observation': .,"],
    ),
    "dtype": (
        lambda: changed(observation=lambda x: tf.cast(x, tf.float64)),
        TypeError,
        ["'observation': tf.float64", "'observation': tf.float32"],
    ),
    "shape": (
        lambda: changed(observation=lambda x: x[..., :3]),
        ValueError,
        ["'observation': TensorShape([5, 2, 3])", "'observation': TensorShape([4])"],
    ),
    "sequence length": (
        lambda: networks.experience(KIND, steps=3),
        ValueError,
        ["time axis dim value '3' vs the expected '2'"],
    ),
    "no time": (
        lambda: tf.nest.map_structure(lambda x: x[:, 0], networks.experience(KIND)),
        ValueError,
        ["must have two outer dimensions", "TensorShape([5, 4])", "TensorShape([4])"],
    ),
    "fewer rewards": (
        lambda: changed(reward=lambda x: x[:3]),
        ValueError,
        ["same number of examples", "observation [5]", "reward [3]"],
    ),
    "one action, which would broadcast": (
        lambda: changed(action=lambda x: x[:1]),
        ValueError,
        ["same number of examples", "observation [5]", "action [1]"],
    ),
    "one observation, which would broadcast": (
        lambda: changed(observation=lambda x: x[:1]),
        ValueError,
        ["same number of examples", "observation [1]", "action [5]"],
    ),
}


@pytest.mark.parametrize("name", EXPERIENCE_CASES)
@pytest.mark.parametrize("index", [0, 1], ids=["FbrcAgent", "BehaviorAgent"])
@pytest.mark.parametrize("method", ["train", "loss"])
def test_experience(name, index, method):
    make, error, parts = EXPERIENCE_CASES[name]
    experience = make()
    assert_says(message_of(error, lambda: getattr(agents()[index], method)(experience)), parts)


@pytest.mark.parametrize("shape", [[3], [1], [5, 1], [5, 2]])
@pytest.mark.parametrize("index", [0, 1], ids=["FbrcAgent", "BehaviorAgent"])
def test_weights(shape, index):
    experience = networks.experience(KIND)
    message = message_of(
        ValueError, lambda: agents()[index].train(experience, weights=tf.ones(shape))
    )
    assert_says(
        message, [f"weights has the shape {tuple(shape)}; ", "must be a scalar or of shape [5]"]
    )


@pytest.mark.parametrize("weights", [2.0, [2.0] * 5, None])
@pytest.mark.parametrize("index", [0, 1], ids=["FbrcAgent", "BehaviorAgent"])
def test_weights_that_are_right(weights, index):
    agents()[index].loss(networks.experience(KIND), weights=weights)


def traced_loss(agent_, kind, *outer):
    """Traces the loss for experience whose outer dimensions are known or None."""
    signature = tf.nest.map_structure(
        lambda t: tf.TensorSpec([*outer, *t.shape[2:]], t.dtype), networks.experience(kind)
    )
    return tf.function(agent_.loss, input_signature=[signature]).get_concrete_function()


def test_batch_size_that_is_not_known_is_no_mistake():
    assert traced_loss(agents()[1], KIND, None, 2)


def test_recurrent_critic_without_a_known_sequence_length():
    kind = networks.KINDS["recurrent"]
    recurrent = networks.make_agent(kind, behavior())
    message = message_of(ValueError, lambda: traced_loss(recurrent, kind, 5, None))
    assert_says(message, ["recurrent critic_network it must", "with T known", "(5, None)"])


@pytest.mark.parametrize(
    "observation, make_actor, parts",
    [
        (networks.DICT, networks.KINDS["dict observation"].actor, ["'place'", "'goal'"]),
        (networks.VECTOR, networks.recurrent_actor, ["network_state_0"]),
    ],
)
def test_export_of_what_serving_cannot_take(observation, make_actor, parts, tmp_path):
    policy = actor_policy.ActorPolicy(
        ts.time_step_spec(observation), KIND.action, make_actor(observation, KIND.action)
    )
    path = str(tmp_path / "1")
    message = message_of(errors.InputError, lambda: export.export_policy(policy, path))
    assert_says(message, ["stateless policy over one observation tensor", *parts])


# Numbers, flags and optimizers.

ADAM = tf.keras.optimizers.Adam


@pytest.mark.parametrize(
    "argument, value, wanted",
    [
        ("gamma", 1.5, "a number from 0 to 1"),
        ("gamma", tf.constant(-1.0), "a number from 0 to 1"),
        ("target_update_tau", 0.0, "a number above 0 and up to 1"),
        ("target_update_period", 0, "an integer of 1 or more"),
        ("gradient_penalty_weight", -1.0, "a finite number of 0 or more"),
        ("critic_loss_weight", -0.5, "a finite number of 0 or more"),
        ("actor_loss_weight", "x", "a finite number of 0 or more"),
        ("alpha_loss_weight", None, "a finite number of 0 or more"),
        ("reward_bonus", float("nan"), "a finite number"),
        ("reward_scale_factor", float("inf"), "a finite number"),
        ("initial_log_alpha", True, "a finite number"),
        ("target_entropy", "low", "a number, or None"),
        ("gradient_clipping", -1, "a number above 0, or None"),
        ("seed", 2**31, "an integer from -2147483648 to 2147483647, or None"),
        ("include_critic_entropy_term", 1, "True or False"),
        ("use_log_alpha_in_alpha_loss", None, "True or False"),
        ("share_actor_sample", "yes", "True or False"),
        ("jit_compile", 0, "True or False"),
        ("actor_optimizer", "adam", "an optimizer, such as @Adam() in gin"),
        ("critic_optimizer", ADAM, "an optimizer, such as @Adam() in gin"),
    ],
)
def test_arguments_of_fbrc_agent(argument, value, wanted):
    message = message_of(ValueError, lambda: agent(**{argument: value}))
    assert_says(message, [f"{argument} is ", f"; it must be {wanted}."])


@pytest.mark.parametrize("argument", ["actor_optimizer", "critic_optimizer", "alpha_optimizer"])
@pytest.mark.parametrize("rate", [0.0, -1.0])
def test_learning_rates(argument, rate):
    message = message_of(ValueError, lambda: agent(**{argument: ADAM(rate)}))
    assert message.startswith(
        f"The learning rate of {argument} is {rate}; it must be a finite number above 0."
    )


def test_an_agent_that_only_acts_needs_no_optimizers_but_the_algorithm_does():
    names = ("actor_optimizer", "critic_optimizer", "alpha_optimizer")
    assert agent(**dict.fromkeys(names))
    specs = (ts.time_step_spec(KIND.observation), KIND.action)
    for name in names:
        gin.bind_parameter(f"FbrcAgent.{name}", None)
    message = message_of(
        ValueError, lambda: fbrc_agent.create_fbrc_agent(*specs, 0, {"behavior": behavior()})
    )
    gin.clear_config()
    assert message.startswith("actor_optimizer is None; it must be an optimizer")


@pytest.mark.parametrize(
    "arguments, wanted",
    [
        ({"optimizer": None}, "optimizer is None; it must be an optimizer"),
        ({"alpha_optimizer": ADAM(0.0)}, "The learning rate of alpha_optimizer is 0.0; it must be"),
        ({"initial_log_alpha": None}, "initial_log_alpha is None; it must be a finite number."),
        ({"target_entropy": "x"}, "target_entropy is 'x'; it must be a number, or None."),
        ({"seed": 0.5}, "seed is 0.5; it must be an integer"),
    ],
)
def test_arguments_of_the_behavior_agent(arguments, wanted):
    given = {"optimizer": ADAM(), **arguments}
    message = message_of(
        ValueError,
        lambda: behavior_agent.BehaviorAgent(
            ts.time_step_spec(KIND.observation), KIND.action, behavior(), **given
        ),
    )
    assert message.startswith(wanted)


UNITS = "a tuple of integers of 1 or more, such as (256, 256)"
BOUNDS = "two finite numbers, the lower one first, such as (-20.0, 2.0)"


@pytest.mark.parametrize(
    "make",
    [
        networks.behavior_network.MixtureBehaviorNetwork,
        networks.actor_network.create_actor_network,
        lambda *spec, **arguments: critic_network.create_offset_network(spec, **arguments),
    ],
)
@pytest.mark.parametrize("units", [16, (0,), "ab", (True,), (1.5,), None])
def test_units_of_layers(make, units):
    message = message_of(ValueError, lambda: make(*SPEC, fc_layer_params=units))
    assert message.startswith(f"fc_layer_params is {units!r}; it must be {UNITS}.")


@pytest.mark.parametrize(
    "make",
    [
        networks.behavior_network.MixtureBehaviorNetwork,
        networks.actor_network.create_actor_network,
    ],
)
@pytest.mark.parametrize("bounds", [(2, -20), 3, (0.0,), (0.0, float("inf"))])
def test_bounds_of_the_log_standard_deviation(make, bounds):
    message = message_of(ValueError, lambda: make(*SPEC, log_std_bounds=bounds))
    assert message.startswith(f"log_std_bounds is {bounds!r}; it must be {BOUNDS}.")


@pytest.mark.parametrize(
    "argument, value, wanted",
    [
        ("num_components", 0, "an integer of 1 or more"),
        ("num_components", 2.5, "an integer of 1 or more"),
        ("joint", 1, "True or False"),
    ],
)
def test_arguments_of_the_mixture(argument, value, wanted):
    message = message_of(
        ValueError,
        lambda: networks.behavior_network.MixtureBehaviorNetwork(*SPEC, **{argument: value}),
    )
    assert message.startswith(f"{argument} is {value}; it must be {wanted}.")
