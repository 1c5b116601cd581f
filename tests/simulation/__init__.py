"""Simulation of actors, committer and journal in one thread: see docs/explanation/testing.md."""
