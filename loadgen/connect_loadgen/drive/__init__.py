"""The load itself: peers, operations, pacing, transports, and what was recorded."""
