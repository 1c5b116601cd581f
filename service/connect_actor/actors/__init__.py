"""The dispatcher, the connect actor and the router that finds or starts one."""
