"""Models that the cluster serves."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import cached_property
from typing import TYPE_CHECKING

from fermata.v1 import model_pb2, model_pb2_grpc

from .names import tenant_name
from .transport import Transport

if TYPE_CHECKING:
    from fermata.v1.model_pb2_grpc import ModelServiceAsyncStub


class Models:
    """``ModelService``."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    @cached_property
    def _stub(self) -> ModelServiceAsyncStub:
        return model_pb2_grpc.ModelServiceStub(self._transport.channel)

    async def list(self) -> Sequence[model_pb2.Model]:
        """The models that are being served."""
        request = model_pb2.ListModelsRequest(parent=tenant_name(self._transport.tenant))
        return tuple((await self._transport.unary(self._stub.ListModels, request)).models)

    async def embed(self, texts: Iterable[str], *, model: str = "") -> Sequence[Sequence[float]]:
        """A unit vector for each of 1 to 512 texts, in order; by the built-in model where none is named."""
        request = model_pb2.EmbedTextsRequest(
            parent=tenant_name(self._transport.tenant), model=model, texts=texts
        )
        response = await self._transport.unary(self._stub.EmbedTexts, request)
        return [tuple(embedding.values) for embedding in response.embeddings]
