"""Fuzzing: mutated messages against every parser and every RPC. See docs/results/fuzzing.md."""
