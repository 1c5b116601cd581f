"""The journal above failing, lying and damaged storage."""
