"""Compiling a condition, and finding at that moment whatever can be found without a call.

The library checks the grammar. What it finds only when a condition runs, and would therefore refuse calls
for, is found here: names and functions that don't exist, patterns and dates that are wrong, results that are
no truth value, loops too deep to be bounded.
"""

from __future__ import annotations

import difflib
import itertools
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from fermata.server.policy.conditions import (
    CEL,
    CEL_ERRORS,
    VARIABLES,
    Condition,
    ConditionError,
    Scope,
    brief,
)

if TYPE_CHECKING:
    import cel

    from fermata.server.policy.rules import Call

TEXT_LIMIT = 2_000
"""Characters in one condition."""
LOOP_DEPTH_LIMIT = 3
REQUESTER_FIELDS = frozenset({"name", "roles"})
FUNCTIONS = frozenset(
    {"size", "contains", "startsWith", "endsWith", "matches"}
    | {"int", "uint", "double", "string", "bytes", "type", "dyn", "timestamp", "duration"}
    | {"getFullYear", "getMonth", "getDayOfYear", "getDayOfMonth", "getDate", "getDayOfWeek"}
    | {"getHours", "getMinutes", "getSeconds", "getMilliseconds"}
)
REGEX_STEP_COST = 50
"""A ``matches`` compiles its pattern each time (10 µs), which is that many plain steps of a loop."""

_TYPES = frozenset({"int", "uint", "double", "bool", "string", "bytes", "list", "map", "null_type", "type"})
_LOOPS = {"all": 1, "exists": 1, "exists_one": 1, "map": 2, "filter": 2}
"""By how much each raises the power of the work; ``map`` and ``filter`` copy their result at each element."""


class ConditionSyntaxError(ValueError):
    """A text that is no usable condition. ``line`` and ``column`` count from 1 within the text."""

    def __init__(self, message: str, line: int = 1, column: int = 1) -> None:
        super().__init__(message)
        self.message = message
        self.line = line
        self.column = column


def compile_condition(text: str, sample: Call) -> Condition:
    """Compile ``text`` and check what can be checked before there is a call.

    :param sample: any call; what the condition gives for it has to be a truth value, if it gives anything.
    :raises ConditionSyntaxError: with the position inside ``text`` and how to mend it.
    """
    if len(text) > TEXT_LIMIT:
        raise ConditionSyntaxError(
            f"it has {len(text)} characters; the limit is {TEXT_LIMIT}. Split the rule"
        )
    if not text.strip():
        raise ConditionSyntaxError("it is empty. Leave `when` out for a rule without a condition")
    try:
        program: cel.Program = CEL.compile(text)
    except CEL_ERRORS as error:
        raise _syntax_error(text, str(error)) from error

    shape = _Shape.of(text)
    loop_variables = shape.loop_variables
    for name in program.functions():
        # Loops and `has` are expanded while compiling; what is left of them was written wrongly.
        if name in _LOOPS:
            message = f"{name} takes a variable and an expression, as in args.list.{name}(x, x > 0)"
            raise _at(text, _offset(text, name), message)
        if re.match(r"_?[A-Za-z]", name) and name not in FUNCTIONS:
            raise _unknown("function", name, sorted(FUNCTIONS | {"has"} | _LOOPS.keys()), text)
    for name in program.variables():
        if name not in VARIABLES and name not in loop_variables and name not in _TYPES:
            raise _unknown("name", name, sorted(VARIABLES), text)
    if shape.loop_depth > LOOP_DEPTH_LIMIT:
        raise ConditionSyntaxError(
            f"its loops are {shape.loop_depth} deep (map and filter count twice); the limit is "
            f"{LOOP_DEPTH_LIMIT}. Split the rule, or say it with `all` and `exists`"
        )
    condition = Condition(
        text,
        program,
        VARIABLES.intersection(program.variables()),
        shape.loop_depth,
        REGEX_STEP_COST if "matches" in program.functions() else 1,
    )
    _try(condition, sample)
    return condition


class _Token(NamedTuple):
    kind: str
    text: str
    offset: int


_TOKEN = re.compile(
    r"""(?P<skip>\s+|//[^\n]*)
    |(?P<string>[bB]?[rR][bB]?(?:\"{3}[\s\S]*?\"{3}|'{3}[\s\S]*?'{3}|"[^"\n]*"|'[^'\n]*')
      |[bB]?(?:\"{3}(?:\\[\s\S]|[^\\])*?\"{3}|'{3}(?:\\[\s\S]|[^\\])*?'{3}|"(?:\\.|[^"\\\n])*"|'(?:\\.|[^'\\\n])*'))
    |(?P<word>[A-Za-z_]\w*)
    |(?P<other>[\s\S])""",
    re.VERBOSE,
)


def _tokens(text: str) -> Iterator[_Token]:
    for found in _TOKEN.finditer(text):
        if found.lastgroup is not None and found.lastgroup != "skip":
            yield _Token(found.lastgroup, found.group(), found.start())


@dataclass(frozen=True)
class _Shape:
    """What the text of a valid expression tells: which names its loops bind and how deep they are."""

    loop_variables: frozenset[str]
    loop_depth: int

    @classmethod
    def of(cls, text: str) -> _Shape:
        """:raises ConditionSyntaxError: a constant in it can never work."""
        tokens = list(_tokens(text))
        texts = [token.text for token in tokens] + [""] * 4
        bound: set[str] = set()
        open_brackets: list[int] = []
        deepest = 0
        for i, token in enumerate(tokens):
            before, after = texts[i - 1] if i else "", texts[i + 1]
            if token.kind == "word":
                if after == "{":
                    message = f"messages such as {token.text}{{}} aren't available; compare fields"
                    raise _at(text, token.offset, message)
                if before == "." and texts[i - 2] == "requested_by" and token.text not in REQUESTER_FIELDS:
                    raise _unknown("field of requested_by", token.text, sorted(REQUESTER_FIELDS), text)
                if after == "(" and texts[i + 3] == ")" and tokens[i + 2].kind == "string":
                    _check_constant(text, token, tokens[i + 2])
            if token.text in ("(", "[", "{"):
                is_method = token.text == "(" and i >= 2 and texts[i - 2] == "."
                is_loop = is_method and before in _LOOPS and texts[i + 2] == ","
                if is_loop:
                    bound.add(after)
                open_brackets.append(_LOOPS[before] if is_loop else 0)
                deepest = max(deepest, sum(open_brackets))
            elif token.text in (")", "]", "}") and open_brackets:
                open_brackets.pop()
        return cls(frozenset(bound), deepest)


def _check_constant(text: str, function: _Token, literal: _Token) -> None:
    """A regular expression, point in time or duration that is written out has to be a valid one."""
    if function.text not in ("matches", "timestamp", "duration"):
        return
    receiver = "''." if function.text == "matches" else ""
    try:
        CEL.compile(f"{receiver}{function.text}({literal.text})").execute({})
    except CEL_ERRORS as error:
        message = f"{function.text}({literal.text}) is not valid: {brief(error)}"
        raise _at(text, literal.offset, message) from error


def _try(condition: Condition, sample: Call) -> None:
    """Refuse what gives no truth value for ``sample``. An error counts only where no call could change it."""
    try:
        condition.holds(Scope(sample))
    except ConditionError as failed:
        if not condition.variables:
            raise ConditionSyntaxError(f"it can never be true or false: {failed}") from failed
        if failed.__cause__ is None:
            raise ConditionSyntaxError(f"{failed}. Compare it with something") from failed


def _syntax_error(text: str, message: str) -> ConditionSyntaxError:
    """The first error of the library's parser, with its position and without its list of possible tokens."""
    # Some of its errors have the position 0:0; one that says where is worth more.
    found = re.search(r"ERROR: <input>:([1-9]\d*):([1-9]\d*): (.*)", message)
    line, column, what = (
        (int(found[1]), int(found[2]), found[3]) if found else (1, 1, "it is no CEL expression")
    )
    what = re.sub(r"^Syntax error: ", "", what)
    what = re.sub(r" expecting \{.*", "", what).replace("mismatched input '<EOF>'", "it ends too early")
    words = [token.text for token in _tokens(text) if token.kind != "string"]
    for word, operator in (("and", "&&"), ("or", "||"), ("not", "!"), ("is", "==")):
        if word in words:
            what += f". CEL writes {operator} for {word!r}"
            break
    else:
        if "=" in words and not {"==", "<=", ">=", "!="} & {a + b for a, b in itertools.pairwise(words)}:
            what += ". CEL compares with =="
    return ConditionSyntaxError(f"{what} (column {column} of {_excerpt(text, line)!r})", line, column)


def _unknown(kind: str, name: str, known: list[str], text: str) -> ConditionSyntaxError:
    close = difflib.get_close_matches(name, known, n=1)
    hint = f"did you mean {close[0]!r}? " if close else ""
    return _at(text, _offset(text, name), f"there is no {kind} {name!r}; {hint}There are: {', '.join(known)}")


def _offset(text: str, name: str) -> int:
    return next((token.offset for token in _tokens(text) if token.text == name), 0)


def _at(text: str, offset: int, message: str) -> ConditionSyntaxError:
    line = text.count("\n", 0, offset) + 1
    return ConditionSyntaxError(message, line, offset - (text.rfind("\n", 0, offset) + 1) + 1)


def _excerpt(text: str, line: int) -> str:
    lines = text.split("\n")
    return lines[min(line, len(lines)) - 1].strip()[:120]
