"""Tasks and the environments to evaluate them in."""
