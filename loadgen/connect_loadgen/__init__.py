"""The lab: load on a real service over real gRPC, and honest comparisons of what it did."""

import logging
import os

# We fork only to exec; gRPC's fork handlers have nothing to do then, say so on standard error, and
# can crash the child in between.
os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "false")

# A home that can't be written to costs matplotlib a second, which is no warning to a user.
logging.getLogger("matplotlib").setLevel(logging.ERROR)
