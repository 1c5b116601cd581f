"""Who may do what: transport security, authentication, quotas. Knows gRPC, but no channels."""
