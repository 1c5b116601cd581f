"""Tests. Timings belong in benchmarks/; tests assert results and counts."""
