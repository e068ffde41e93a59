"""The effect ledger and its gate.

A step is one call of a tool. ``gate`` is the one transaction in which a call may start: is the lease live, does a latch cover it,
has it run already, what did people decide, what does policy say? Its start is on record before the effect. ``steps`` closes steps
and tells latches about it; ``recovery`` takes effects of which nobody knows the outcome to a person; ``digests`` binds decisions to
exactly what was shown; ``models`` keeps model calls, so that a task that is executed again does not ask a model anew and choose
differently.
"""
