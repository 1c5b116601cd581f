"""The phases of a connect actor, a file each: what a message means in it.

A phase is entered once, receives every message until the actor becomes another, and is left when
the actor stops or crashes in it. What comes next it does not know: it reports what has happened
(``phases.reports``), and ``actors.connect`` has the table of transitions. All of it runs on the
dispatcher's thread.
"""
