"""The factory story, played with the real components: ``python -m fermata.agents.factory.demo``, as ``make demo`` does.

``processes`` starts the plant and the control plane and ends what it started; ``story`` plays the scenes over the public API and
checks every step by what the plant itself says; ``narrator`` prints. Without a terminal the demo plays the person's part as well.
"""
