"""What every RPC needs around it."""

from __future__ import annotations

import asyncio
import functools
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, NoReturn, TypeVar

import grpc

from fermata.server.errors import DomainError, ErrorKind
from fermata.server.names import parse, parse_tenant
from fermata.server.plane import ControlPlane
from fermata.server.principals.callers import Caller, Callers, acting_for, authorize
from fermata.server.principals.links import principal_of
from fermata.server.principals.records import by_name
from fermata.server.rpc.errors import to_status

log = logging.getLogger(__name__)

Request = TypeVar("Request")
Response = TypeVar("Response")
Context = grpc.aio.ServicerContext[Any, Any]
Unary = Callable[[Any, Request, Caller], Awaitable[Response]]
Stream = Callable[[Any, Request, Caller], AsyncIterator[Response]]


class Service:
    """Base of the services: the control plane, and who calls."""

    NAME: str
    """The service's name in the table of rights."""

    def __init__(self, plane: ControlPlane, callers: Callers) -> None:
        self.plane = plane
        self.callers = callers

    def require_tenant(self, caller: Caller, tenant: str) -> str:
        """Return ``tenant`` if it is the caller's own.

        :raises DomainError: OTHER_TENANT, as NOT_FOUND: what is there is nobody else's business.
        """
        if tenant != caller.tenant:
            raise DomainError(
                f"There is no tenant {tenant!r} for you.", reason="OTHER_TENANT", kind=ErrorKind.NOT_FOUND
            )
        return tenant

    def tenant_of(self, caller: Caller, parent: str) -> str:
        """The tenant in ``tenants/{tenant}``, if it is the caller's own."""
        return self.require_tenant(caller, parse_tenant(parent))

    def id_of(self, caller: Caller, name: str, noun: str) -> str:
        """The id in the name of something of the caller's tenant; empty where ``name`` is.

        :raises DomainError: INVALID_NAME, OTHER_TENANT.
        """
        if not name:
            return ""
        parsed = parse(name, noun)
        self.require_tenant(caller, parsed.tenant)
        return parsed.id

    async def act_for(self, caller: Caller, on_behalf_of: str, method: str) -> Caller:
        """The caller as it acts for a person, named by a principal or by the link of an account; see :func:`acting_for`."""
        if not on_behalf_of:
            return caller

        def look(connection: Any) -> tuple[str, Any | None]:
            person = principal_of(connection, on_behalf_of) if "/links/" in on_behalf_of else on_behalf_of
            return person, by_name(connection, person)

        person, row = await self.plane.read(look)
        return acting_for(lambda _: row, caller, person, method)


def unary(function: Unary[Request, Response]) -> Callable[[Any, Request, Context], Awaitable[Response]]:
    """Wrap a method that answers once."""

    @functools.wraps(function)
    async def method(self: Service, request: Request, context: Context) -> Response:
        try:
            return await function(self, request, _caller(self, function.__name__, context))
        except DomainError as error:
            await _refuse(context, error)
        except grpc.aio.AbortError:
            raise
        except Exception:  # noqa: BLE001 - logged whole; the caller gets INTERNAL
            await _fail(context, f"{self.NAME}.{function.__name__}")

    return method


def stream(function: Stream[Request, Response]) -> Callable[[Any, Request, Context], AsyncIterator[Response]]:
    """Wrap a method that answers with a stream. It ends as soon as its caller's token or right is gone."""

    @functools.wraps(function)
    async def method(self: Service, request: Request, context: Context) -> AsyncIterator[Response]:
        try:
            with self.callers.open_stream(
                _authorization(context), f"{self.NAME}.{function.__name__}"
            ) as opened:
                responses = function(self, request, _caller(self, function.__name__, context))
                while True:
                    opened.waits = True
                    response = await anext(responses, None)
                    opened.waits = False
                    if response is None:
                        return
                    yield response
                    opened.check()
        except asyncio.CancelledError:
            if not opened.was_ended():
                raise
            assert opened.ended_by is not None
            await _refuse(context, opened.ended_by)
        except DomainError as error:
            await _refuse(context, error)
        except (grpc.aio.AbortError, GeneratorExit):
            raise
        except Exception:  # noqa: BLE001 - logged whole; the caller gets INTERNAL
            await _fail(context, f"{self.NAME}.{function.__name__}")

    return method


def _caller(service: Service, method: str, context: Context) -> Caller:
    caller = service.callers.authenticate(_authorization(context))
    authorize(caller, f"{service.NAME}.{method}")
    return caller


def _authorization(context: Context) -> str:
    return str(dict(context.invocation_metadata() or ()).get("authorization", ""))


async def _refuse(context: Context, error: DomainError) -> NoReturn:
    status = to_status(error)
    await context.abort(status.code, status.details or "", status.trailing_metadata or ())


async def _fail(context: Context, method: str) -> NoReturn:
    """A fault of ours: the log has all of it, the caller only that it happened."""
    log.exception("%s failed", method)
    await context.abort(grpc.StatusCode.INTERNAL, f"{method} failed; the server's log says why.")
