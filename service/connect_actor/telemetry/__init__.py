"""What the service tells Prometheus about itself; ``docs/metrics.md`` says what each figure means.

The rooms count for themselves in plain integers. What is published is read off those when it is
scraped, so a message pays for an addition and nothing else. No label is unbounded: never a
connect id.
"""
