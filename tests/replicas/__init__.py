"""Exporters that share a PostgreSQL database: the limits hold, and all serve."""
