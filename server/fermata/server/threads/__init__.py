"""Threads: conversations, and the LangGraph state that goes with them.

``conversations`` makes and lists threads; ``checkpoints`` stores what hosts' checkpointers send. The server never reads a state: the
bytes are the serializer's, and only a host that has the lease gets them back.
"""
