"""``loadgen reach``: how near the service comes to what is in reach, each row beside its peer."""
