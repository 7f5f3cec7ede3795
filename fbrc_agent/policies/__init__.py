"""Policies on disk: export, serving, model cards."""
