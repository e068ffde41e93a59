"""The live side: who is connected, who watches, what is due.

Nothing here is needed to know what is true; that is in the store. ``hub`` tells watchers what was committed, ``workers`` knows the
connected workers and their room, ``channel`` speaks with one worker, ``sweeper`` looks after time. Lose all of it in a crash, and a
restart builds it anew.
"""
