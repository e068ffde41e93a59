"""Principals: people, services, bots and workers, what each may do, and the tokens by which they are known.

Tokens are 256 random bits and are kept as SHA-256 only; there is nothing to brute-force, so a slow hash would buy nothing.
``rights`` is one table from method to role.
"""
