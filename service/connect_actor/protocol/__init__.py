"""X3DH and the Double Ratchet, sans I/O: bytes and values in, a result and a change out.

Nothing in this package reads a clock, draws randomness by itself, touches a disk or knows of
actors, gRPC or metrics.
"""
