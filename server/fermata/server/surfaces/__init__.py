"""Chat surfaces: which thread a place in one is, and which message shows what.

A bot keeps nothing of this itself, so that it may die at any instant and several of it may run at once. A card is compared and set:
of two bots that are about to post the same, one is told that the other was first.
"""
