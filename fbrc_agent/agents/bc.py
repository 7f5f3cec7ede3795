"""Behavior cloning: the behavior policy as an algorithm of its own."""

import gin

from fbrc_agent.agents import algorithm, behavior


@gin.configurable
def bc(is_greedy: bool = True) -> algorithm.Algorithm:
    """Behavior cloning by maximum likelihood, `BehaviorAgent`.

    With one component the network is a tanh-squashed diagonal normal, what F-BRC's authors clone
    with; with more it is F-BRC's mixture.

    Args:
      is_greedy: Whether a run evaluates the mode of the policy, not its samples.
    """
    return algorithm.Algorithm(
        name="bc",
        label="BC",
        create_agent=behavior.create_behavior_agent,
        is_greedy=is_greedy,
        diagnostics=behavior.diagnostics,
        panels=behavior.PANELS,
    )
