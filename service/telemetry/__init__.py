"""What the service tells Prometheus about itself."""
