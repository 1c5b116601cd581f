"""A client for both ends of a channel: application calls and the peer that holds the other end."""
