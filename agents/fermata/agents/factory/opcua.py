"""The plant's OPC UA address space: one object per line, the plant's own nodes, and the methods that change
things.

::

    Objects/Plant                          (ns=2;s=plant) line-1 … line-4                      (ns=2;s=line-3)
      <reading>                          (ns=2;s=line-3.vibration_mm_s), read only, see ``readings``
      SetSpeed(rpm) Stop(reason) Start() AcknowledgeAlarm(code) ScheduleMaintenance(task, within_hours, note)
      ReadTrend(quantity, minutes)       -> times_s, values Notify(role, message) alarms, orders, messages,
      journal    JSON arrays, computed when read write_count, refused_count           how many commands were
      accepted and refused since the plant opened

A method that changes something answers (accepted, sequence, reason, message). A refusal is an answer and not
a fault of the protocol: ``accepted`` is false, ``reason`` is an UPPER_SNAKE code, and nothing was changed.
Wrong argument types and counts are the protocol's own BadTypeMismatch, BadArgumentsMissing and
BadTooManyArguments.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from typing import Any, cast

from asyncua import ua
from asyncua.common.node import Node
from asyncua.server.server import Server
from asyncua.ua.attribute_ids import AttributeIds
from asyncua.ua.status_codes import StatusCodes

from fermata.agents.factory import process, readings
from fermata.agents.factory.alarms import Alarm
from fermata.agents.factory.errors import PlantRefusedError
from fermata.agents.factory.process import Plant
from fermata.agents.factory.readings import Quantity, Reading
from fermata.agents.factory.recorder import QUANTITIES, Journal, Samples

NAMESPACE = "urn:fermata:factory"
NAMESPACE_INDEX = 2
PLANT_PATH = "/fermata/plant"
_NUMBERS = frozenset(
    {
        ua.VariantType.Double,
        ua.VariantType.Float,
        ua.VariantType.Int16,
        ua.VariantType.Int32,
        ua.VariantType.Int64,
        ua.VariantType.UInt16,
        ua.VariantType.UInt32,
        ua.VariantType.UInt64,
    }
)
_TYPES: dict[type, ua.VariantType] = {
    str: ua.VariantType.String,
    float: ua.VariantType.Double,
    int: ua.VariantType.Int64,
}
_ANSWER = (
    ("accepted", ua.VariantType.Boolean),
    ("sequence", ua.VariantType.Int64),
    ("reason", ua.VariantType.String),
    ("message", ua.VariantType.String),
)


def node_id(name: str) -> ua.NodeId:
    """The id of a node of the plant by its dotted name, such as ``line-3.vibration_mm_s`` or
    ``write_count``.
    """
    return ua.NodeId(ua.String(name), ua.Int16(NAMESPACE_INDEX))


class PlantNodes:
    """A plant behind an asyncua server. Create it with :meth:`build`, then call :meth:`advance` once per
    tick.

    :param past: the plant at each step of its past, the last one being the plant now.
    """

    def __init__(self, server: Server, past: Sequence[Plant]) -> None:
        self.plant = past[-1]
        self.journal = Journal()
        self.samples = Samples()
        for plant in past:
            self.samples.record(plant)
        self._server = server
        self._published: dict[str, Reading] = {}

    @classmethod
    async def build(cls, server: Server, past: Sequence[Plant]) -> PlantNodes:
        """Register the namespace and add all nodes to an initialised server that has not started yet."""
        nodes = cls(server, past)
        if await server.register_namespace(NAMESPACE) != NAMESPACE_INDEX:
            raise RuntimeError(f"{NAMESPACE} has to be the server's first namespace of its own")
        root = await server.nodes.objects.add_object(node_id("plant"), _name("Plant"))
        for line in nodes.plant.lines:
            parent = await root.add_object(node_id(line.name), _name(line.name))
            for name, value in (readings.values(line) | readings.limits(line)).items():
                await nodes._add_variable(parent, f"{line.name}.{name}", value)
            await nodes._add_line_methods(parent, line.name)
        for name, value in nodes._counts().items():
            await nodes._add_variable(root, name, value)
        for name, read in nodes._documents().items():
            variable = await root.add_variable(node_id(name), _name(name), "[]", ua.VariantType.String)
            server.set_attribute_value_callback(variable.nodeid, _json_reader(read))
        await nodes._add_command(
            root,
            "Notify",
            "plant.Notify",
            {"role": str, "message": str},
            lambda plant, role, message: process.notify_person(plant, role, message),
        )
        return nodes

    async def advance(self, dt: float) -> None:
        """Move the plant by ``dt`` simulated seconds and publish what changed."""
        self.plant = process.step(self.plant, dt)
        self.samples.record(self.plant)
        await self._publish()

    async def _publish(self) -> None:
        # No await in here gives way to a reader, so a client never sees half of a step.
        for line in self.plant.lines:
            for name, value in readings.values(line).items():
                await self._write(f"{line.name}.{name}", value)
        for name, count in self._counts().items():
            await self._write(name, count)

    async def _write(self, name: str, value: Reading) -> None:
        if self._published.get(name) != value:
            self._published[name] = value
            variant = ua.Variant(value, _TYPES[type(value)])
            await self._server.write_attribute_value(node_id(name), ua.DataValue(variant))

    async def _add_variable(self, parent: Node, name: str, value: Reading) -> None:
        self._published[name] = value
        await parent.add_variable(node_id(name), _name(name.rpartition(".")[2]), value, _TYPES[type(value)])

    async def _add_line_methods(self, parent: Node, line: str) -> None:
        commands: list[tuple[str, dict[str, type], Callable[..., Plant]]] = [
            ("SetSpeed", {"rpm": float}, process.set_speed),
            ("Stop", {"reason": str}, process.stop_line),
            ("Start", {}, process.start_line),
            ("AcknowledgeAlarm", {"code": str}, process.acknowledge_alarm),
            (
                "ScheduleMaintenance",
                {"task": str, "within_hours": float, "note": str},
                process.schedule_maintenance,
            ),
        ]
        for name, parameters, command in commands:
            await self._add_command(
                parent, name, f"{line}.{name}", parameters, _on_line(command, line), line=line
            )

        async def read_trend(parent: ua.NodeId, *arguments: ua.Variant) -> list[ua.Variant] | ua.StatusCode:
            bad = _check(arguments, [str, float])
            if bad is not None:
                return bad
            quantity, minutes = (argument.Value for argument in arguments)
            if quantity not in QUANTITIES or not 0 < minutes <= readings.TREND_MINUTES:
                return _status(StatusCodes.BadOutOfRange)
            times, samples = self.samples.window(line, cast(Quantity, quantity), minutes)
            return [ua.Variant(times, ua.VariantType.Double), ua.Variant(samples, ua.VariantType.Double)]

        await parent.add_method(
            node_id(f"{line}.ReadTrend"),
            _name("ReadTrend"),
            read_trend,
            [_argument("quantity", ua.VariantType.String), _argument("minutes", ua.VariantType.Double)],
            [_argument(name, ua.VariantType.Double, rank=1) for name in ("times_s", "values")],
        )

    async def _add_command(
        self,
        parent: Node,
        name: str,
        node_name: str,
        parameters: Mapping[str, type],
        command: Callable[..., Plant],
        line: str = "",
    ) -> None:
        async def call(parent: ua.NodeId, *arguments: ua.Variant) -> list[ua.Variant] | ua.StatusCode:
            bad = _check(arguments, list(parameters.values()))
            if bad is not None:
                return bad
            given = [argument.Value for argument in arguments]
            try:
                self.plant = command(self.plant, *given)
            except PlantRefusedError as refusal:
                self.journal.refused += 1
                await self._publish()
                return _answer(False, self.journal.count, refusal.reason, refusal.message)
            value = json.dumps(dict(zip(parameters, given, strict=True)), ensure_ascii=False)
            entry = self.journal.accept(_iso(datetime.now(UTC)), name, line, value)
            await self._publish()
            return _answer(True, entry.sequence, "", "")

        await parent.add_method(
            node_id(node_name),
            _name(name),
            call,
            [_argument(parameter, _TYPES[kind]) for parameter, kind in parameters.items()],
            [_argument(output, kind) for output, kind in _ANSWER],
        )

    def _counts(self) -> dict[str, Reading]:
        return {"write_count": self.journal.count, "refused_count": self.journal.refused}

    def _documents(self) -> dict[str, Callable[[], list[dict[str, Any]]]]:
        return {
            "alarms": lambda: [self._alarm(alarm) for alarm in self.plant.alarms],
            "orders": lambda: [
                {
                    "number": order.number,
                    "line": order.line,
                    "task": order.task.value,
                    "note": order.note,
                    "ordered_at": self._wall(order.ordered_at_s),
                    "due_at": self._wall(order.due_at_s),
                    "done_at": self._wall(order.done_at_s),
                }
                for order in self.plant.orders
            ],
            "messages": lambda: [
                {
                    "number": message.number,
                    "role": message.role.value,
                    "text": message.text,
                    "sent_at": self._wall(message.sent_at_s),
                }
                for message in self.plant.messages
            ],
            "journal": lambda: [asdict(entry) for entry in self.journal.entries],
        }

    def _alarm(self, alarm: Alarm) -> dict[str, Any]:
        return {
            "number": alarm.number,
            "line": alarm.line,
            "code": alarm.code,
            "severity": alarm.kind.severity.value,
            "text": alarm.kind.text,
            "quantity": alarm.kind.quantity,
            "value": round(alarm.value, 2),
            "active": alarm.active,
            "raised_at": self._wall(alarm.raised_at_s),
            "cleared_at": self._wall(alarm.cleared_at_s),
            "acknowledged_at": self._wall(alarm.acknowledged_at_s),
        }

    def _wall(self, at_s: float | None) -> str | None:
        # Simulated time is counted back from now, so that it stays right however late a tick was.
        return None if at_s is None else _iso(datetime.now(UTC) - timedelta(seconds=self.plant.time_s - at_s))


def _on_line(command: Callable[..., Plant], line: str) -> Callable[..., Plant]:
    return lambda plant, *arguments: command(plant, line, *arguments)


def _check(arguments: Sequence[ua.Variant], kinds: Sequence[type]) -> ua.StatusCode | None:
    if len(arguments) < len(kinds):
        return _status(StatusCodes.BadArgumentsMissing)
    if len(arguments) > len(kinds):
        return _status(StatusCodes.BadTooManyArguments)
    for argument, kind in zip(arguments, kinds, strict=True):
        wanted = _NUMBERS if kind is float else {_TYPES[kind]}
        if argument.VariantType not in wanted or argument.is_array or argument.Value is None:
            return _status(StatusCodes.BadTypeMismatch)
    return None


def _status(code: int) -> ua.StatusCode:
    return ua.StatusCode(ua.UInt32(code))


def _answer(accepted: bool, sequence: int, reason: str, message: str) -> list[ua.Variant]:
    answer = (accepted, sequence, reason, message)
    return [ua.Variant(value, kind) for value, (_, kind) in zip(answer, _ANSWER, strict=True)]


def _json_reader(
    read: Callable[[], list[dict[str, Any]]],
) -> Callable[[ua.NodeId, AttributeIds], ua.DataValue]:
    return lambda _node, _attribute: ua.DataValue(
        ua.Variant(json.dumps(read(), ensure_ascii=False), ua.VariantType.String)
    )


def _argument(name: str, kind: ua.VariantType, rank: int = -1) -> ua.Argument:
    return ua.Argument(
        Name=name, DataType=ua.NodeId(ua.Int32(kind.value)), ValueRank=rank, ArrayDimensions=[]
    )


def _name(name: str) -> ua.QualifiedName:
    return ua.QualifiedName(name, NAMESPACE_INDEX)


def _iso(moment: datetime) -> str:
    return moment.isoformat(timespec="milliseconds")
