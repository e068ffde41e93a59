"""Agents and their immutable revisions.

``revisions`` keeps what never changes in memory, by digest; ``operations`` applies, lists and deletes inside transactions. A run
pins the revision that it started on, so that applying a new one touches no run that is going on.
"""
