"""``loadgen overload``: what becomes of the service when it is asked for more than it can do."""
