"""What is known only now: who is connected, and who watches.

Nothing here is needed to know what is true; that is in the store. ``hub`` tells watchers what was committed, ``workers`` knows the
connected workers and their room. Lose all of it in a crash, and a restart builds it anew.
"""
