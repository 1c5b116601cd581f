"""The demo stack without Docker: services, load and a real Prometheus as processes of ours."""
