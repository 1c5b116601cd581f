"""``loadgen bench``: the benchmarks that the audit asked for, and the parts that it speaks of.

``cases`` says what a benchmark is; ``protocol``, ``payloads``, ``storage``, ``journals``,
``channels`` and ``endurance`` hold them; ``workers`` starts the processes in which ``timing`` times
them (pyperf) and ``memory`` counts what they allocate.
"""
