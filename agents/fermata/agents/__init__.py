"""What runs inside a run host: the gate, the checkpointer, models, tools and graphs. Never imports the server."""
