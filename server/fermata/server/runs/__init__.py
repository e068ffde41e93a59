"""Runs: a durable record, an append-only history, and one table of transitions.

``transitions`` decides, ``record`` writes one run's row and events together, ``lifecycle`` holds the operations that start, park,
resume and end runs, ``queries`` reads. A run's future rests on its row alone: whoever holds the lease of the current epoch may write
for it, and everybody else is refused.
"""
