"""ModelService."""

from __future__ import annotations

from collections.abc import Sequence

from fermata.server.errors import DomainError, ErrorKind, invalid
from fermata.server.models.cards import bundled, embedding
from fermata.server.plane import ControlPlane
from fermata.server.principals.callers import Caller, Callers
from fermata.server.rpc.method import Service, unary
from fermata.v1 import model_pb2, model_pb2_grpc

MAX_TEXTS = 512
MAX_TEXT_CHARACTERS = 20_000


class ModelService(Service, model_pb2_grpc.ModelServiceServicer):
    """See protos/fermata/v1/model.proto."""

    NAME = "ModelService"

    def __init__(self, plane: ControlPlane, callers: Callers) -> None:
        super().__init__(plane, callers)
        self._models = bundled()

    @unary
    async def ListModels(
        self, request: model_pb2.ListModelsRequest, caller: Caller
    ) -> model_pb2.ListModelsResponse:
        self.tenant_of(caller, request.parent)
        return model_pb2.ListModelsResponse(models=self._models)

    @unary
    async def EmbedTexts(
        self, request: model_pb2.EmbedTextsRequest, caller: Caller
    ) -> model_pb2.EmbedTextsResponse:
        self.tenant_of(caller, request.parent)
        served = embedding(self._models).name
        if request.model and f"models/{request.model.removeprefix('models/')}" != served:
            raise DomainError(
                f"The model {request.model!r} is not served here; {served} is.",
                reason="MODEL_NOT_FOUND",
                kind=ErrorKind.NOT_FOUND,
                model=request.model,
                served=served,
            )
        _check(request.texts)
        vectors = await self.plane.workers.embed(request.texts)
        return model_pb2.EmbedTextsResponse(
            embeddings=[model_pb2.Embedding(values=vector.tolist()) for vector in vectors], model=served
        )


def _check(texts: Sequence[str]) -> None:
    if not 1 <= len(texts) <= MAX_TEXTS:
        raise invalid(
            f"{len(texts)} texts were sent; 1 to {MAX_TEXTS} make a call.",
            reason="TEXTS_COUNT",
            field="texts",
        )
    for index, text in enumerate(texts):
        if not text.strip():
            raise invalid(f"texts[{index}] is empty.", reason="TEXT_EMPTY", field=f"texts[{index}]")
        if len(text) > MAX_TEXT_CHARACTERS:
            raise invalid(
                f"texts[{index}] has {len(text)} characters; {MAX_TEXT_CHARACTERS} are the most. Cut it by its meaning.",
                reason="TEXT_TOO_LONG",
                field=f"texts[{index}]",
            )
