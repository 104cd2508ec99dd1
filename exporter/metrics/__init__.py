"""Converts snapshots to metric families, and metric families to bytes."""
