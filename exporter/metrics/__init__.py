"""Snapshots to samples to bytes."""
