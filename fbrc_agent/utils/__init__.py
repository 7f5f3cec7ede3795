"""Utilities that know nothing of reinforcement learning."""
