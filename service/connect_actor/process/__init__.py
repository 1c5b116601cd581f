"""How the service is put together, started, hardened and stopped."""
