"""Tests. Timings belong in benchmarks/; tests assert results and counts."""

import os

# As the programs do, and before anyone imports gRPC: tests fork only to exec, and gRPC's fork
# handlers can crash the child in between.
os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "false")
