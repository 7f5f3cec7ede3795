"""Networks: actor, behavior policy, critic."""
