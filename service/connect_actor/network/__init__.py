"""Addresses, connections and certificates, as both ends see them."""
