"""Who may call what: one table. A method that is not in it is refused to everybody."""

from __future__ import annotations

from collections.abc import Iterable

from fermata.v1 import principal_pb2

VIEWER = principal_pb2.ROLE_VIEWER
OPERATOR = principal_pb2.ROLE_OPERATOR
APPROVER = principal_pb2.ROLE_APPROVER
ADMIN = principal_pb2.ROLE_ADMIN

_READ = frozenset({VIEWER, OPERATOR, APPROVER})
_OPERATE = frozenset({OPERATOR})
_STOP = frozenset({OPERATOR, APPROVER})
_ADMIN: frozenset[principal_pb2.Role.ValueType] = frozenset()

RIGHTS: dict[str, frozenset[principal_pb2.Role.ValueType]] = {
    "RunService.CreateRun": _OPERATE,
    "RunService.GetRun": _READ,
    "RunService.ListRuns": _READ,
    "RunService.ListRunEvents": _READ,
    "RunService.ListSteps": _READ,
    "RunService.WatchRuns": _READ,
    "ThreadService.CreateThread": _OPERATE,
    "ThreadService.GetThread": _READ,
    "ThreadService.ListThreads": _READ,
    "ApprovalService.GetApproval": _READ,
    "ApprovalService.ListApprovals": _READ,
    # Which role an approval wants is on the approval; that is checked with the decision, in its transaction.
    "ApprovalService.DecideApproval": _STOP,
    "ApprovalService.WatchApprovals": _READ,
    # Whoever can let something happen can stop it.
    "LatchService.CreateLatch": _STOP,
    "LatchService.GetLatch": _READ,
    "LatchService.ListLatches": _READ,
    "LatchService.WatchLatch": _READ,
    "LatchService.ReleaseLatch": _STOP,
    "AgentService.ApplyAgent": _ADMIN,
    "AgentService.GetAgent": _READ,
    "AgentService.ListAgents": _READ,
    "AgentService.DeleteAgent": _ADMIN,
    "AgentService.ListRevisions": _READ,
    "PolicyService.GetPolicy": _READ,
    "PolicyService.UpdatePolicy": _ADMIN,
    "PolicyService.TestPolicy": _READ,
    "CollectionService.CreateCollection": _OPERATE,
    "CollectionService.GetCollection": _READ,
    "CollectionService.ListCollections": _READ,
    "CollectionService.DeleteCollection": _ADMIN,
    "CollectionService.IngestDocument": _OPERATE,
    "CollectionService.ListDocuments": _READ,
    "CollectionService.DeleteDocument": _OPERATE,
    "CollectionService.SearchDocuments": _READ,
    "ModelService.ListModels": _READ,
    "ModelService.EmbedTexts": _READ,
    "PrincipalService.CreatePrincipal": _ADMIN,
    "PrincipalService.GetPrincipal": _READ,
    "PrincipalService.ListPrincipals": _READ,
    "PrincipalService.UpdatePrincipal": _ADMIN,
    "PrincipalService.RotateToken": _ADMIN,
    "PrincipalService.DeletePrincipal": _ADMIN,
    "PrincipalService.GetCaller": _READ,
    # What a bot keeps here for its surface; what it does for a person is judged by that person's rights.
    "SurfaceService.OpenPlace": _OPERATE,
    "SurfaceService.GetPlace": _READ,
    "SurfaceService.CreateLink": _ADMIN,
    "SurfaceService.GetLink": _READ,
    "SurfaceService.ListLinks": _READ,
    "SurfaceService.DeleteLink": _ADMIN,
    "SurfaceService.CreateLinkCode": _OPERATE,
    # With one's own token, for oneself.
    "SurfaceService.RedeemLinkCode": _READ,
    "SurfaceService.PutCard": _OPERATE,
    "SurfaceService.ListCards": _READ,
    "WorkerService.ListWorkers": _READ,
}
"""Method to the roles of which a caller needs one. An admin may call all of these."""

WORKER_METHODS = frozenset(
    {
        "WorkerService.Connect",
        "WorkerService.GetPack",
        "WorkerService.ReportWorkerDeath",
        "WorkerService.ListWorkers",
    }
)
"""All that a worker's token reaches, and nobody else's does but for ListWorkers."""


def may_call(
    method: str,
    kind: principal_pb2.PrincipalKind.ValueType,
    roles: Iterable[principal_pb2.Role.ValueType],
) -> bool:
    """True where a principal of ``kind`` with ``roles`` may call ``Service.Method``."""
    if kind == principal_pb2.PRINCIPAL_KIND_WORKER:
        return method in WORKER_METHODS
    wanted = RIGHTS.get(method)
    held = set(roles)
    return wanted is not None and (ADMIN in held or bool(wanted & held))
