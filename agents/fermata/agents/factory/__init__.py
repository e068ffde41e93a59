"""The example factory: a plant of four lines, served over OPC UA, and the tools, documents and policy of its
operator agent.

Chosen: the physics are pure functions (``ai4i``, ``line``, ``alarms``, ``process``) that a test steps by
hand; one process of its own (``plant``) puts them behind OPC UA, as a real controller would be, so that an
agent's write crosses a real protocol and can be read back. Refused: a simulator inside the agent's process
(nothing would prove that a halted run wrote nothing), and setpoints as writable variables (a method can
refuse with a reason, is journaled as one command, and cannot be half done).
"""
