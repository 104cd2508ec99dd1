"""The HTTP side: metrics, probes and the status page."""
