"""The ``fermata`` command line and the terminal chat.

Commands are thin: they ask the client and draw what it answers. ``--json`` on a command puts one JSON
document (or one line per item of a stream) on stdout and nothing else; people get Rich; errors go to stderr
with an exit code of ``exits``. Rich's console markup is off everywhere, for most of what is shown was
written by models, tools and documents.
"""

import os

# gRPC's C core writes to the terminal by itself; it reads this when it is first used.
os.environ.setdefault("GRPC_VERBOSITY", "NONE")
