"""Offline data: sources, validated transitions, batches."""
