"""Several processes that are one service: each owns a share of the channels and its own journal.

A supervisor (``supervisor``) starts them. All listen at one address, where the kernel gives each
connection to one of them; a command for a channel of another's (``shares``) is handed on to it over
a socket pair (``router``, ``link``, ``frames``). With one worker none of this is loaded or run.
"""
