"""Agents: the algorithms, each in one file, and what they share."""
