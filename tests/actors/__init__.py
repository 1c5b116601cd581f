"""Tests of the actor type, its mailbox, its future and its dispatcher."""
