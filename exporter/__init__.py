"""A Prometheus exporter for Tedee smart locks."""

__version__ = "0.1.0"
