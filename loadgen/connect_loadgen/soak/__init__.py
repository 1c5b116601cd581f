"""``loadgen soak``: hours of load with churn, and whether anything grows meanwhile."""
