"""The dashboards as code; ``make dashboards`` writes ``grafana/generated/`` from it.

One module for each dashboard, which says what is on it; ``queries`` and ``kit`` are what they
share.
"""
