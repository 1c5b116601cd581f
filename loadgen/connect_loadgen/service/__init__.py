"""The service that is measured: started, asked for its counters, replaced by a bare one."""
