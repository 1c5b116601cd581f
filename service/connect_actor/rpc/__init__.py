"""The gRPC surface: servicer, interceptors, errors as statuses, health and reflection."""
