"""What can be seen of the service: metrics, probes, logs, request ids."""
