"""Generated from ``protos/``: ``make protos``."""
