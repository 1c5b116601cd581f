"""Simulation of actors, committer and journal in one thread: see docs/simulation.md."""
