"""The cluster side: workers with their run hosts, the embedder, and the controller that keeps them alive. The
only place with Ray.

Chosen: the worker is a plain asyncio class that knows one gRPC stream and some child processes, and a Ray
actor wraps it; the controller's decisions are a pure function over what it sees, and all Ray calls sit behind
one Protocol. So both are tested without a cluster and with a clock that tests own. Refused: Ray calls on the
path of a run (an actor call costs a hundred times a message on the stream), Ray's own restarts and retries (a
repeated task is a repeated effect), and running user code in the actor (it could not be killed without taking
every other run along).
"""

import os

# gRPC reads this once, when it is imported. Ray's event loop (uvloop) starts processes by fork, not vfork, and gRPC's handlers
# for that start threads in the child which crash it now and then before its exec. No child of ours needs gRPC before that.
os.environ["GRPC_ENABLE_FORK_SUPPORT"] = "0"
