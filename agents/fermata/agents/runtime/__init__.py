"""What runs in a run host: the gate, the checkpointer, records of model calls, and the processes around them.

Chosen: one class-level gate at ``BaseTool.run/arun`` (a wrapper on ToolNodes misses tools that are called inside a
node); a wire thread beside the graph's event loop, so that a halt reaches the latch even while user code blocks the
loop, and a gate can wait in any thread; a zygote per revision that forks hosts, because a process is the only thing
that can be stopped for certain. Refused: cancelling threads, pickling graphs, ``BaseException``-free interrupts, and
gates that cache an answer. Nothing here knows the server or Ray: a host has one socket, and on it ``WorkerMessage`` and
``ServerMessage`` frames of ``fermata.v1``.
"""
