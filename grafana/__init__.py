"""What an operator sees: dashboards as code, Prometheus rules, and a local stack that proves them.

``docs/how-to/dashboards.md`` is the way in.
"""
