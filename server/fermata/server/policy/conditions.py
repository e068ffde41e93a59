"""Conditions in CEL, the Common Expression Language, and all that we know of the library that runs them.

A condition is compiled once, checked as far as that is possible without a call, and evaluated against a
:class:`Scope`. It says true or false, or it fails; there is no third answer.

**Names.** ``tool``, ``args``, ``agent``, ``revision``, ``effect``, ``risk``, ``provenance`` (list of strings)
and ``requested_by`` (``.name``, ``.roles``). There is no clock and no I/O: the same call gets the same
answer.

**The library** is the Rust crate ``cel`` through ``common-expression-language``: CEL's core, without the
extension libraries (both Apache-2.0 or MIT). It lacks ``bool(x)``, ``string(bool)``, time zones and messages.
What differs from the specification, found by trying: ``size`` of a string counts UTF-8 bytes; an int and a
double are compared as doubles (no difference here: integers beyond 2^53 - 1 are refused, as RFC 8785 does for
the digest); ``exists`` fails at an element that fails, although a later one would be true. A missing key is
an error (guard it with ``has(args.x)``), text and number don't compare with ``<`` and ``>`` (error) and are
never ``==`` (false), an int and a double do compare, and regular expressions run in linear time.

**Bounds.** CEL always ends, but a loop in a loop over large arguments would take hours, the crate's
``filter`` and ``map`` take quadratic time, and very deep values overflow its stack. So the values that a
condition reads are measured first (:data:`SIZE_LIMIT`, :data:`DEPTH_LIMIT`, :data:`STEPS_LIMIT`,
:data:`WORK_LIMIT`) and what is too large fails. The bounds hold against arguments, which a model or a hostile
text may have chosen; whoever writes the policy is trusted not to attack the server with it.
"""

from __future__ import annotations

import importlib
import importlib.machinery
import importlib.util
import math
import re
import sys
from dataclasses import dataclass, field
from types import ModuleType
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    import cel

    from fermata.server.policy.rules import Call

SIZE_LIMIT = 64 * 1024
"""Values plus characters of text that a condition may read."""
DEPTH_LIMIT = 32
"""Lists and objects inside of each other in what a condition reads."""
STEPS_LIMIT = 2**18
"""Turns of innermost loops (values to the power of the loops' depth) times their cost, over all conditions
of a call; under 100 ms.
"""
WORK_LIMIT = 2**26
"""Turns of innermost loops times the characters that each may look at, likewise; under 100 ms."""
INTEGER_LIMIT = 2**53 - 1

VARIABLES = frozenset({"tool", "args", "agent", "revision", "effect", "risk", "provenance", "requested_by"})
CEL_ERRORS = (ArithmeticError, LookupError, RuntimeError, TypeError, ValueError)
"""What the library raises for an evaluation that fails."""


class ConditionError(Exception):
    """A condition has no answer for this call. The caller refuses the call."""


def _load_cel() -> ModuleType:
    """The library's extension module, without its package, which would load a terminal UI (0.4 s, 29 MiB)."""
    package = importlib.util.find_spec("cel")
    if package is not None and package.submodule_search_locations and "cel" not in sys.modules:
        spec = importlib.machinery.PathFinder.find_spec("cel.cel", list(package.submodule_search_locations))
        if spec is not None and spec.loader is not None:
            module = importlib.util.module_from_spec(spec)
            # Registered, so that a later `import cel` finds this one: it can be loaded only once.
            sys.modules["cel.cel"] = module
            spec.loader.exec_module(module)
            return module
    return importlib.import_module("cel")


CEL = _load_cel()


class Scope:
    """The values of one call, as conditions see them; each is measured and converted when first read."""

    def __init__(self, call: Call) -> None:
        self._call = call
        self._context: cel.Context | None = None
        self._sizes: dict[str, tuple[int, int]] = {}
        self._steps = self._work = 0

    def bind(self, condition: Condition) -> cel.Context:
        """The context with everything that ``condition`` reads.

        :raises ConditionError: a value is not JSON, or too large for this condition.
        """
        if self._context is None:
            self._context = CEL.Context()
        values = characters = 0
        for name in condition.variables:
            size = self._sizes.get(name)
            if size is None:
                value = self._value(name)
                size = (1, len(value)) if type(value) is str else measure(value, name)
                try:
                    self._context.add_variable(name, value)
                except CEL_ERRORS as error:
                    # After measuring, lone surrogates are all that the library can still refuse.
                    raise ConditionError(f"{name} holds a text that is not valid Unicode") from error
                self._sizes[name] = size
            values += size[0]
            characters += size[1]
        if condition.loop_depth:
            steps = values**condition.loop_depth
            self._steps += steps * condition.step_cost
            self._work += steps * characters
            if self._steps > STEPS_LIMIT or self._work > WORK_LIMIT:
                raise ConditionError(
                    f"what it reads is too large for a condition with loops: {values} values and "
                    f"{characters} characters at loop depth {condition.loop_depth}"
                )
        if values + characters > SIZE_LIMIT:
            raise ConditionError(f"what it reads is larger than {SIZE_LIMIT} values and characters")
        return self._context

    def _value(self, name: str) -> object:
        call = self._call
        match name:
            case "args":
                return dict(call.args)
            case "effect":
                return call.effect_class.value
            case "risk":
                return call.risk_class.value
            case "provenance":
                return list(call.provenance)
            case "requested_by":
                return {"name": call.requested_by.name, "roles": list(call.requested_by.roles)}
            case _:
                value: str = getattr(call, name)
                return value


@dataclass(frozen=True, slots=True)
class Condition:
    """A compiled condition. Equal where the text is equal."""

    text: str
    program: cel.Program = field(repr=False, compare=False)
    variables: frozenset[str] = field(repr=False, compare=False)
    """Those of :data:`VARIABLES` that it reads."""
    loop_depth: int = field(repr=False, compare=False)
    """The work grows with the size of the arguments to this power."""
    step_cost: int = field(default=1, repr=False, compare=False)
    """What one turn of the innermost loop costs, in plain comparisons."""

    def holds(self, scope: Scope) -> bool:
        """True or false for the call of ``scope``.

        :raises ConditionError: it is neither, whatever the cause.
        """
        context = scope.bind(self)
        try:
            answer = self.program.execute(context)
        except CEL_ERRORS as error:
            raise ConditionError(brief(error)) from error
        if answer is True or answer is False:
            return answer
        raise ConditionError(f"it gives {_type_name(answer)} instead of true or false")


def measure(value: object, name: str) -> tuple[int, int]:
    """How many JSON values ``value`` holds, itself included, and how many characters of text.

    :param name: what to call the value in an error.
    :raises ConditionError: it is deeper or larger than a condition may read, or not JSON; says where.
    """
    values = characters = 0
    pending: list[tuple[object, _Path]] = [(value, _Path(None, name, 0))]
    while pending:
        item, path = pending.pop()
        values += 1
        if isinstance(item, str):
            characters += len(item)
        elif isinstance(item, (dict, list, tuple)):
            depth = path.depth + 1
            if depth > DEPTH_LIMIT:
                raise ConditionError(f"{name} is nested more than {DEPTH_LIMIT} deep")
            if values + len(item) > SIZE_LIMIT:
                raise ConditionError(f"{name} is larger than {SIZE_LIMIT} values and characters")
            if isinstance(item, dict):
                for key, member in item.items():
                    if not isinstance(key, str):
                        raise ConditionError(f"{path} has the key {key!r}, which is not a text")
                    characters += len(key)
                    pending.append((member, _Path(path, key, depth)))
            else:
                pending.extend((member, _Path(path, str(i), depth)) for i, member in enumerate(item))
        elif item is None or isinstance(item, bool):
            continue
        elif isinstance(item, int):
            if not -INTEGER_LIMIT <= item <= INTEGER_LIMIT:
                raise ConditionError(f"{path} is an integer beyond 2^53 - 1, which JSON can't carry exactly")
        elif not isinstance(item, float):
            raise ConditionError(f"{path} is of type {type(item).__name__}, not a JSON value")
        elif not math.isfinite(item):
            raise ConditionError(f"{path} is {item}, not a JSON number")
        if values + characters > SIZE_LIMIT:
            raise ConditionError(f"{name} is larger than {SIZE_LIMIT} values and characters")
    return values, characters


class _Path(NamedTuple):
    """Where a value sits, as a chain to the outside; written out only for an error."""

    outer: _Path | None
    key: str
    depth: int

    def __str__(self) -> str:
        return self.key if self.outer is None else f"{self.outer}.{self.key}"


def brief(error: Exception) -> str:
    """The library's message, as short as it can be and in our words where we know the cause."""
    if isinstance(error, KeyError):
        return f"there is no key {error.args[0]!r} (guard it with `has`)"
    message = str(error)
    if message.startswith("No such overload"):
        return "an operator got values of types that it does not take (text beside a number?)"
    message = re.sub(r"\s+", " ", message.split(" Check ")[0].split(". CEL does not")[0])
    return message[:200].rstrip(". ")


def _type_name(value: object) -> str:
    names = {
        str: "a text",
        int: "a number",
        float: "a number",
        list: "a list",
        dict: "an object",
        type(None): "null",
    }
    return names.get(type(value), f"a {type(value).__name__}")
