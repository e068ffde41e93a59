"""The control plane: the only process that writes the store, and what it starts."""
