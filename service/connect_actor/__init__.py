"""connect-actor: a service that holds one persistent, end-to-end encrypted session per channel.

The rooms and what each may know of the others are described in docs/explanation/architecture.md.
"""
