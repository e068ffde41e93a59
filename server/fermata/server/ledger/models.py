"""Model calls on record: a task that is executed again gets the answer that it got before."""

from __future__ import annotations

from collections.abc import Iterable

from sqlalchemy import and_, select
from sqlalchemy.dialects.sqlite import insert

from fermata.server.runs.record import RunRecord
from fermata.server.store import schema
from fermata.server.store.database import Transaction
from fermata.v1 import worker_pb2


def keep(transaction: Transaction, run: RunRecord, records: Iterable[worker_pb2.ModelRecord]) -> None:
    """Put model calls on record; the first answer under a key and digest stays."""
    rows = [
        {
            "tenant": run.tenant,
            "run": run.id,
            "key": record.key,
            "digest": record.digest,
            "model": record.model,
            "type": record.result.type,
            "data": record.result.data,
        }
        for record in records
    ]
    if rows:
        transaction.execute(insert(schema.model_records).prefix_with("OR IGNORE"), rows)


def recall(transaction: Transaction, run: RunRecord, wanted: worker_pb2.ModelQuery) -> worker_pb2.ModelReply:
    """The record of a model call, if there is one."""
    table = schema.model_records.c
    row = transaction.execute(
        select(table.type, table.data).where(
            and_(
                table.tenant == run.tenant,
                table.run == run.id,
                table.key == wanted.key,
                table.digest == wanted.digest,
            )
        )
    ).first()
    if row is None:
        return worker_pb2.ModelReply()
    return worker_pb2.ModelReply(found=True, result=worker_pb2.Blob(type=row.type, data=row.data))
