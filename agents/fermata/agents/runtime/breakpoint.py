"""A hold between two super-steps: LangGraph's ``interrupt_before``, read anew before each of them."""

from __future__ import annotations

from collections.abc import Sequence

from fermata.agents.runtime.run import ActiveRun


class HoldPoint(list[str]):
    """Stands where LangGraph takes the names of nodes to interrupt before. Contains every node while the run is to be
    held, and always those that the graph itself was compiled with.

    :param compiled: what the graph was compiled with: names, or ``*``.
    """

    def __init__(self, run: ActiveRun, compiled: Sequence[str] | str) -> None:
        super().__init__(compiled)
        self._run = run
        self._compiled = compiled
        self.held_by = ""
        """The latch that stopped the graph; empty where none has."""

    def __contains__(self, node: object) -> bool:
        if self._run.hold:
            self.held_by = self._run.hold
            return True
        return self._compiled == "*" or node in self._compiled

    def __bool__(self) -> bool:
        return True
