"""``loadgen audit``: every number that the audit states, measured on this implementation.

``claims`` says what was claimed and where, ``plan`` what is run, ``figures`` what is worked out of
the runs, ``verdicts`` by which rules a claim is judged. Nothing here knows how it will come out.
"""
