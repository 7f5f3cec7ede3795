"""`from fbrc_agent import fbrc_agent`, TF-Agents' idiom for an agent's module."""

from fbrc_agent.agents.fbrc import FbrcAgent, FbrcLossInfo

__all__ = ["FbrcAgent", "FbrcLossInfo"]
