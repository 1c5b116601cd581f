"""The commands of ``connect-actor``, a module each: ``run`` takes flags and returns an exit code.

Nothing is imported here: a command loads what it needs, and no more.
"""
