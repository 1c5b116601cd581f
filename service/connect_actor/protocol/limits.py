"""Upper limits of what a channel may be told, apart from what obeys them.

Settings are read without loading any cryptography, so these numbers stand alone.
"""

__all__ = ["MAX_LIFETIME", "MAX_ONE_TIME_PREKEYS", "MAX_REDELIVERY_WINDOW", "MAX_UINT32"]

MAX_UINT32 = 2**32 - 1
"""Limits of a chain travel and are stored as uint32."""

MAX_LIFETIME = 100 * 365 * 24 * 60 * 60
"""Seconds; keeps every expiry within the wire's int64."""

MAX_ONE_TIME_PREKEYS = 200
"""Bounds the work and memory that an unknown peer's bundle can cause; the lab goes up to 100."""

MAX_REDELIVERY_WINDOW = 1_024
"""Bounds what a window adds to every whole state: some 100 bytes for each delivery."""
