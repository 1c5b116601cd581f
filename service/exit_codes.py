"""What the commands of ``connect-actor`` end with."""

__all__ = ["CANNOT_START", "RIGHT", "UNHEALTHY", "USAGE"]

RIGHT = 0
UNHEALTHY = 1
USAGE = 2
CANNOT_START = 3
