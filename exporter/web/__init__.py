"""The HTTP server: metrics, probes and pages."""
