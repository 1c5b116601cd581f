"""Measurements beside independent implementations, each a command that prints ratios."""
