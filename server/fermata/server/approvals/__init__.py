"""Approvals: questions to people, decided at most once.

``records`` makes, reads and cancels them inside transactions. What follows from a decision for
its run is the business of ``lifecycle``.
"""
