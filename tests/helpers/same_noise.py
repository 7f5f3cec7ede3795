"""Trains agents of SacAgent's family on the same noise, whatever else they draw."""

import numpy as np
import tensorflow as tf

DRAWS_PER_STEP = 3  # a' of the TD target, a of the actor loss, a of the temperature loss


def all_variables(agent):
    """Returns the variables that training moves: critics, targets, actor, log alpha."""
    names = ("critic_network_1", "critic_network_2", "actor_network")
    names += ("target_critic_network_1", "target_critic_network_2")
    nets = [getattr(agent, f"_{name}") for name in names]
    return [v for net in nets for v in net.variables] + [agent._log_alpha]


def share_weights(source, target):
    """Gives an agent the weights of another one."""
    for v, w in zip(all_variables(source), all_variables(target)):
        w.assign(v)


def train(agent, experiences, noise, compiled=True):
    """Trains one step per experience; the k-th action drawn in step t uses `noise[t, k]`.

    The actor must give a tanh-squashed normal: the action is its bijector at loc + scale * noise.

    Args:
      agent: An agent with `SacAgent`'s `_actions_and_log_probs` and `_apply_gradients`.
      experiences: A list of experiences.
      noise: Standard normal, `[steps, DRAWS_PER_STEP, ..., A]`, `...` as the time steps'.
      compiled: Whether the step is a `tf.function`.

    Returns:
      For each step the loss info, and the gradients in the order of `all_variables`.
    """
    apply_gradients = agent._apply_gradients

    def step(experience, step_noise):
        draws = iter(tf.unstack(step_noise))
        gradients = {}

        def sample(distribution, draw=None):
            normal = distribution.input_distribution
            u = normal.mean() + normal.stddev() * next(draws)
            actions = distribution._squashed_distribution.bijector.forward(u)
            return actions, distribution.log_prob(actions)

        def actions_and_log_probs(time_steps, training=False, draw=None):
            policy = agent._train_policy if training else agent._policy
            state = policy.get_initial_state(step_noise.shape[1])
            return sample(policy.distribution(time_steps, state).action)

        def record_and_apply(grads, variables, optimizer):
            gradients.update((id(v), g) for g, v in zip(grads, variables))
            apply_gradients(grads, variables, optimizer)

        agent._actions_and_log_probs = actions_and_log_probs
        agent._sample = sample  # FbrcAgent draws twice from one distribution.
        agent._apply_gradients = record_and_apply
        info = agent.train(experience)
        assert next(draws, None) is None, f"fewer than {DRAWS_PER_STEP} actions were drawn"
        return info, [gradients[id(v)] for v in all_variables(agent) if id(v) in gradients]

    if compiled:
        step = tf.function(step, autograph=False)
    pairs = [step(e, tf.constant(n)) for e, n in zip(experiences, noise)]
    return [info for info, _ in pairs], [gradients for _, gradients in pairs]


def standard_normal(steps, *shape):
    """Returns noise for `train`; `shape` is that of one draw."""
    generator = np.random.default_rng(0)
    return generator.standard_normal((steps, DRAWS_PER_STEP, *shape)).astype(np.float32)


def assert_equal_training(ours, theirs, experiences, noise, compiled=True):
    """Trains both; asserts equal losses, gradients and weights, none of them without a change."""
    before = [v.numpy() for v in all_variables(ours)]
    (our_losses, our_gradients), (losses, gradients) = (
        train(agent, experiences, noise, compiled) for agent in (ours, theirs)
    )
    tolerance = {"rtol": 1e-6, "atol": 1e-6}
    for our_info, info in zip(our_losses, losses):
        np.testing.assert_allclose(our_info.loss, info.loss, **tolerance)
        np.testing.assert_allclose(our_info.extra[:3], info.extra[:3], **tolerance)
    for our_step, their_step in zip(our_gradients, gradients):
        assert len(our_step) == len(their_step)
        for our_gradient, gradient in zip(our_step, their_step):
            assert np.any(our_gradient)
            np.testing.assert_allclose(our_gradient, gradient, **tolerance)
    for v, w, first in zip(all_variables(ours), all_variables(theirs), before):
        assert not np.array_equal(v, first)
        np.testing.assert_allclose(v, w, **tolerance)
