"""What the benchmarks print, and how they run; never how fast anything is."""
