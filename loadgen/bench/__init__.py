"""``loadgen bench``: the benchmarks that the audit asked for, and the parts that it speaks of.

``cases`` says what a benchmark is; ``protocol``, ``payloads``, ``storage``, ``journals`` and
``channels`` hold them; ``timing`` runs them in worker processes (pyperf) and ``memory`` counts what
they allocate, in a process of its own.
"""
