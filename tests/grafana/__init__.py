"""Dashboards, rules, and the local stack that proves them."""
