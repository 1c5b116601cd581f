"""Metrics, and the probes behind them."""
