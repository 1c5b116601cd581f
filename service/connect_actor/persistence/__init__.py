"""What is written for a change, and how it becomes durable.

Strategies turn a session and a change into a record; the journal commits the records of many
channels together; recovery folds them back into a session. Of a session this package knows no
more than how to encode, decode and apply.
"""
