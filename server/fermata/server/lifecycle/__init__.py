"""What happens to runs: the operations behind the API and behind the workers' channel.

Each module is one boundary, and each public function one transaction: ``start`` makes runs, ``leases`` gives them to workers and
takes them back, ``boundaries`` takes what hosts send, ``decisions`` takes what people decide, ``resumption`` says whether a parked run
goes on, ``latching`` holds and halts, ``releasing`` lifts that, ``budgets`` stops at limits, ``ending`` closes a run. They write
through ``runs``, ``approvals``, ``latches``, ``ledger`` and ``threads``, and know of no socket.
"""
