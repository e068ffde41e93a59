"""Cut a message into clauses: one thing said each, in order, with its condition and its reason set apart.

Chosen: cutting at punctuation and conjunctions, and only where what follows can stand alone (it begins with a verb in
its base form, a subject, a condition, or it is one more fragment of the kind before). Quotations are masked first, so
nothing inside of them can become a clause.
"""

# ruff: noqa: E501 - a pattern or a list of words is read as one line

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import pairwise
from typing import Final

from fermata.agents.planner.quantities import find_quantities
from fermata.agents.planner.text import Token, known_verbs, lemma, mask_quotes, sentences, tokenize
from fermata.agents.planner.words import DETERMINERS

_ADVERBS: Final = frozenset(
    [
        "please",
        "also",
        "then",
        "now",
        "just",
        "first",
        "second",
        "third",
        "secondly",
        "thirdly",
        "finally",
        "next",
        "lastly",
        "afterwards",
        "later",
        "again",
        "kindly",
        "quickly",
        "simply",
        "immediately",
        "instead",
        "maybe",
        "so",
        "ok",
        "okay",
        "either",
        "to",
    ]
)
_SUBJECTS: Final = frozenset(
    [
        "i",
        "we",
        "you",
        "he",
        "she",
        "they",
        "it",
        "it's",
        "i'm",
        "we're",
        "you're",
        "they're",
        "there",
        "there's",
        "that's",
        "this",
        "that",
        "i've",
        "we've",
        "i'd",
        "we'd",
        "i'll",
        "we'll",
        "he's",
        "she's",
        "nobody",
        "someone",
        "somebody",
        "everyone",
        "nothing",
    ]
)
_FINITE: Final = frozenset(
    [
        "is",
        "are",
        "was",
        "were",
        "has",
        "have",
        "had",
        "isn't",
        "aren't",
        "wasn't",
        "weren't",
        "hasn't",
        "haven't",
        "does",
        "doesn't",
        "do",
        "don't",
        "did",
        "didn't",
        "will",
        "won't",
        "would",
        "can",
        "can't",
        "could",
        "should",
        "must",
        "needs",
        "seems",
        "looks",
        "keeps",
        "shows",
        "says",
        "goes",
        "broke",
        "failed",
        "jammed",
        "stopped",
    ]
)
_CONDITION_WORDS: Final = r"with(?= (?:under|over|less|more|at least|at most|fewer|only)\b)|if|unless|provided(?: that)?|in case|should(?= (?:it|the|they|there|this|that)\b)|once you see(?: that)?|once|as soon as|when|whenever|as long as|only if|assuming"
_LEADING_CONDITION: Final = re.compile(
    rf"^(?:(?:and|but|so|ok|okay|then|also|well|otherwise|please|,)\s+)*(?P<word>{_CONDITION_WORDS}|should|were|had)\b\s+(?P<condition>[^,:]+?)"
    r"(?:\s*[,:]\s*(?:then\s+)?|\s+then\s+)(?P<rest>\S.*)$",
    re.IGNORECASE | re.DOTALL,
)
_TRAILING_CONDITION: Final = re.compile(
    rf"^(?P<rest>\S.*?)[,]?\s+(?:but\s+)?(?P<word>(?:but |and )?(?:only )?(?:{_CONDITION_WORDS}))\s+(?P<condition>\S.*)$",
    re.IGNORECASE | re.DOTALL,
)
_REASON: Final = re.compile(
    r"[,]?\s+(?:because|since|as|due to|owing to|on account of)\s+(?=(?:the|it|its|it's|we|i|they|there|a|an|of|\w+ (?:is|are|has|was))\b)",
    re.IGNORECASE,
)
_CUTS: Final = re.compile(r"\s*(?:;|\s[—–-]{1,2}\s|—|\.\.\.|…)\s*")
_SEQUENCE: Final = re.compile(
    r"(?:\s*,)?\s+(?:and\s+)?(?P<link>then|after that|afterwards|after which|and finally|finally|followed by|and after that|and afterwards)\s*,?\s+(?=\S+\s+\S+|\S+$)",
    re.IGNORECASE,
)
_STATE_FRAGMENT: Final = re.compile(
    r"^(?:and )?(?:all |the |both |every )*[a-z]+(?: [a-z]+)? (?:on|off|out|up|down|open|shut|closed)(?: please)?\W*$",
    re.IGNORECASE,
)
_IF_SO: Final = re.compile(r"^(?:and )?(?:if so|if yes|in that case|then|so)\b[\s,:]*(?=\S)", re.IGNORECASE)
_OTHERWISE: Final = re.compile(r"^(?:otherwise|else|if not|or else)\b[\s,:]*(?=\S)", re.IGNORECASE)
#: "… and stop here", "… and go to step 4": never part of what is told to somebody.
_ENDING: Final = re.compile(
    r"(?:then )?(?:(?:stop|end|finish) (?:here|now|there)|(?:go|skip|jump|return|continue) (?:back )?(?:to|with|at) step \d+)\W*$",
    re.IGNORECASE,
)
_TAG: Final = re.compile(
    r"^(?:please |and )?(?:will|would|can|could|won't) you(?: please)?$|^(?:ok|okay|right|all right|alright|yes|please|thanks)$",
    re.IGNORECASE,
)
_ASKS: Final = re.compile(
    r"^(?:what|how|which|who|when|where|why|is|are|does|do|did|has|have|can|could|should|would|will|may|any)\b",
    re.IGNORECASE,
)


@dataclass(frozen=True, slots=True)
class Clause:
    """One thing said.

    `text` is `message[start:end]`; `condition` what must hold before ("" none), with `condition_word` as it was said
    (if, unless, when); `link` how it hangs on the clause before: "", "and", "then", "but", "so"; `sentence` counts
    sentences; `question` says that its sentence ends with a question mark.
    """

    text: str
    start: int
    end: int
    sentence: int = 0
    link: str = ""
    condition: str = ""
    condition_word: str = ""
    question: bool = False


_CORRECTION: Final = re.compile(
    r"(?:\s*(?:,|\.\.\.|…|—|-|–)\s*|(?<![.!?])\s+)(?:(?:no|oh|ah|wait|sorry|oops|hang on)[,\s]+)*(?:no(?=[,:]|\s+(?:\d|wait|sorry|make|to|line|number|the)\b)|sorry|i mean|i meant|make (?:that|it)|or rather|rather(?! than)|correction|scratch that|actually|no wait|wait)[,:\s]+(?:no[,\s]+|make (?:that|it) )?"
    r"(?P<new>(?:(?:to|at|on|in|for|the|line|number)\s+)?[\w.:%°/-]+(?:\s+[\w%°/]+){0,3})\s*[.!]?$",
    re.IGNORECASE,
)


_ONCE_DONE: Final = re.compile(
    r"\b(?:once|when|as soon as|after) (?:that|it|this|which)(?:'s| is| has been| has)? (?:been )?(?:done|finished|complete|completed|over|through)\b[,]?(?=\s+\w)",
    re.IGNORECASE,
)
_SO_SAID: Final = re.compile(r"(?:so|yes|(?:that|this|it)(?:'s| is)? (?:the case|so|true))\W*", re.IGNORECASE)


def corrected(message: str) -> str:
    """ "set it to 5, no sorry, 6" -> "set it to 6": what a person takes back within a message is replaced."""
    message = _ONCE_DONE.sub("then", message)
    message = re.sub(r"\b(if (?:so|yes)) (?=\w)", r"\1, ", message, flags=re.IGNORECASE)
    m = _CORRECTION.search(message)
    if not m:
        return message
    head, new = message[: m.start()], m["new"]
    tokens = [t for t in tokenize(head) if t.is_word]
    first = next(
        (t for t in tokenize(new) if t.is_word and t.low not in ("to", "at", "on", "in", "for", "the")), None
    )
    if first is None:
        return message
    figure = bool(re.match(r"[\d]", first.text))
    said = find_quantities(head)
    if said and find_quantities(new) and (figure or not said[-1].digits):
        return (
            head[: said[-1].start]
            + new[first.start :]
            + ("" if find_quantities(new)[0].unit else head[said[-1].end :])
        )
    for token in reversed(tokens):
        alike = (
            bool(re.match(r"\d", token.text))
            if figure
            else bool(re.search(r"\d", first.text)) == bool(re.search(r"\d", token.text))
            and first.text[:1].isupper() == token.text[:1].isupper()
        )
        if alike and token.low not in known_verbs():
            tail = head[token.end :] if figure else ""
            return head[: token.start] + new[first.start :] + tail
    return message


@lru_cache(maxsize=256)
def split_clauses(message: str, verbs: frozenset[str] = frozenset()) -> tuple[Clause, ...]:
    """Clauses of `message` in order; `verbs` are the base forms that may begin a request."""
    out: list[Clause] = []
    masked = mask_quotes(message)
    for number, (start, end) in enumerate(_corrections_joined(masked, sentences(masked))):
        while end > start and masked[end - 1] in " \n":
            end -= 1
        question = masked[:end].endswith("?")
        parts = _sentence(message, masked, start, end, (verbs or known_verbs()))
        if len(parts) > 1 and _TAG.match(parts[-1].text):
            parts, question = parts[:-1], False
        for part in parts:
            last = part is parts[-1]
            clause = replace(part, question=question and (last or bool(_ASKS.match(part.text))))
            so = _IF_SO.match(clause.text)
            otherwise = _OTHERWISE.match(clause.text)
            if so and out and out[-1].question and not clause.condition:
                start_at = clause.start + so.end()
                clause = replace(
                    clause,
                    text=message[start_at : clause.end],
                    start=start_at,
                    condition=out.pop().text,
                    condition_word="if",
                )
            elif out and out[-1].question and _SO_SAID.fullmatch(clause.condition):
                clause = replace(clause, condition=out.pop().text, condition_word="if")
            said_of = out[-1].condition if out else ""
            if otherwise and said_of and clause.condition in ("", said_of):
                word = "if" if out[-1].condition_word == "unless" else "unless"
                start_at = clause.start + otherwise.end()
                clause = replace(
                    clause,
                    text=message[start_at : clause.end],
                    start=start_at,
                    condition=out[-1].condition,
                    condition_word=word,
                )
            if (
                out
                and clause.condition
                and clause.text.lower().strip(" ,") in ("", "only", "but only", "but")
            ):
                out[-1] = replace(out[-1], condition=clause.condition, condition_word=clause.condition_word)
                continue
            out.append(replace(clause, sentence=number))
    return tuple(out)


def _corrections_joined(masked: str, spans: tuple[tuple[int, int], ...]) -> list[tuple[int, int]]:
    """Sentences, with a correction ("... I mean", "the office I mean") kept with what it corrects."""
    out: list[tuple[int, int]] = []
    for start, end in spans:
        if (out and re.match(r"(?:i mean|no,? i mean|sorry,)\b", masked[start:end], re.IGNORECASE)) or (
            out and end - start < 40 and re.search(r"\bi mean\W*$", masked[start:end], re.IGNORECASE)
        ):
            out[-1] = (out[-1][0], end)
        else:
            out.append((start, end))
    return out


def _sentence(message: str, masked: str, start: int, end: int, verbs: frozenset[str]) -> list[Clause]:
    text = masked[start:end]
    condition = _LEADING_CONDITION.match(text)
    if condition and _is_condition(condition, leading=True):
        rest_at = start + condition.start("rest")
        said = message[start + condition.start("condition") : start + condition.end("condition")]
        parts = _sentence(message, masked, rest_at, end, verbs)
        return [
            replace(
                p, condition=p.condition or said, condition_word=p.condition_word or condition["word"].lower()
            )
            for p in parts
        ]
    bare = _bare_condition(text, verbs)
    if bare:
        parts = _sentence(message, masked, start + bare[1], end, verbs)
        said = message[start + bare[0] : start + bare[1]].strip()
        return [
            replace(p, condition=p.condition or said, condition_word=p.condition_word or "if") for p in parts
        ]
    clauses = []
    for a, b, link in _cut(masked, start, end, verbs):
        clauses.extend(_conditioned(message, masked, a, b, link, verbs))
    for i, (clause, following) in enumerate(pairwise(clauses)):
        # "T4: if warmer than 20, cool it": what stands before the condition is no request of its own
        label = bool(clause.condition) and not any(t.low in verbs for t in tokenize(clause.text)[:2])
        if label and not following.condition and following.link in ("", "and", "then"):
            clauses[i + 1] = replace(
                following, condition=clause.condition, condition_word=clause.condition_word
            )
    return clauses


def _bare_condition(text: str, verbs: frozenset[str]) -> tuple[int, int] | None:
    """(start of the condition, start of the request) of "if the room is cold heat it to 22": no comma between."""
    tokens = tokenize(text)
    if (
        not tokens
        or (tokens[0].low not in ("if", "once") and text[:8].lower() != "in case ")
        or "," in text
        or len(tokens) < 5
    ):
        return None
    for i in range(3, len(tokens) - 1):
        after, before = tokens[i + 1].low, tokens[i - 1].low
        if tokens[i].low in verbs and (
            after in DETERMINERS
            or after in ("it", "them", "line", "to", "off")
            or tokens[i + 1].text[:1].isupper()
        ):
            if before in DETERMINERS or before in (
                "to",
                "not",
                "does",
                "of",
                "in",
                "on",
                "i",
                "we",
                "you",
                "they",
                "would",
                "could",
            ):
                continue
            return tokens[0].end, tokens[i].start
    return None


def _conditioned(message: str, masked: str, a: int, b: int, link: str, verbs: frozenset[str]) -> list[Clause]:
    """The clause of a span, with a condition at either end taken off."""
    a, b = _strip(masked, a, b)
    if a >= b:
        return []
    text = masked[a:b]
    if _bare_condition(text, verbs):
        inner = _sentence(message, masked, a, b, verbs)
        return [replace(inner[0], link=link or inner[0].link), *inner[1:]] if inner else []
    leading = _LEADING_CONDITION.match(text)
    if leading and _is_condition(leading, leading=True):
        inner = _sentence(message, masked, a, b, verbs)
        return [replace(inner[0], link=link or inner[0].link), *inner[1:]] if inner else []
    trailing = _TRAILING_CONDITION.match(text)
    if trailing and _is_condition(trailing, leading=False):
        rest = (a, a + trailing.end("rest"))
        said = message[a + trailing.start("condition") : b]
        rest = _strip(masked, *rest)
        word = re.sub(r"^(?:but|and)\s+", "", trailing["word"].lower())
        return [
            Clause(
                message[rest[0] : rest[1]],
                *rest,
                link=link,
                condition=said.strip(" .!?"),
                condition_word=word,
            )
        ]
    return [Clause(message[a:b], a, b, link=link)]


def _is_condition(m: re.Match[str], *, leading: bool) -> bool:
    word, condition = m["word"].lower().split()[-1], m["condition"]
    tokens = [t.low for t in tokenize(condition)]
    if not tokens:
        return False
    if word in ("should", "were", "had"):
        if not leading and not re.match(
            r"(?:please )?(?!what|how|why|when|where|which|who|the|a|it|i|we|you|they)[a-z]+ ",
            m["rest"],
            re.IGNORECASE,
        ):
            return False
        return tokens[0] not in ("i", "we", "you") and "?" not in m["rest"] and "?" not in condition
    if leading and word in ("as", "once", "when", "whenever") and m["rest"].strip(" ?!.") == "":
        return False
    rest = m["rest"].lower()
    if not leading and word == "if" and rest.endswith("even"):
        return False
    if not leading and re.search(
        r"\b(?:what|how|see|check|(?:tell|inform|let) (?:me|us)|(?:me|us|i|we|not|you) know|wonder|find out|happens?|sure|verify|mind|appreciate|great|nice|lovely|wonderful|grateful|whether)\s*(?:it|\S+ it)?$",
        rest,
    ):
        return False
    if not leading and word in ("when", "as", "once") and re.match(r"^(?:never|don't|do not)\b", rest):
        return True
    return not (
        not leading
        and condition.lower().strip(" ?.!")
        in (
            "possible",
            "you can",
            "you could",
            "you please",
            "needed",
            "necessary",
            "you like",
            "you don't mind",
            "you would",
        )
    )


def _cut(masked: str, start: int, end: int, verbs: frozenset[str]) -> list[tuple[int, int, str]]:
    """Spans of the clauses between `start` and `end` with the link to the one before."""
    if re.search(r"\bi mean\b", masked[start:end], re.IGNORECASE):
        return [(start, end, "")]
    pieces: list[tuple[int, int, str]] = []
    at, link = start, ""
    marks = [(m.start(), m.end(), "and") for m in _CUTS.finditer(masked, start, end)]
    marks += [(m.start(), m.end(), "then") for m in _SEQUENCE.finditer(masked, start, end)]
    for a, b, kind in sorted(marks):
        if a < at:
            continue
        pieces.append((at, a, link))
        at, link = b, kind
    pieces.append((at, end, link))
    out: list[tuple[int, int, str]] = []
    for a, b, kind in pieces:
        out.extend(_conjuncts(masked, a, b, kind, verbs))
    return out


def _conjuncts(
    masked: str, start: int, end: int, link: str, verbs: frozenset[str]
) -> list[tuple[int, int, str]]:
    """Cut at commas and conjunctions behind which a clause of its own begins."""
    tokens = [Token(t.text, t.start + start, t.end + start) for t in tokenize(masked[start:end])]
    out, at = [], start
    spoken = _speech(tokens)
    for i, token in enumerate(tokens):
        if token.low not in (",", "and", "but", "so", "or", ":") or i == 0:
            continue
        if tokens[i - 1].low in (",", "and", "but", "so", "or") or (
            token.low == ":" and not _imperative(tokens, i + 1, verbs)
        ):
            continue
        j = i + 1
        kind = "and" if token.low in (",", ":") else token.low
        while j < len(tokens) and tokens[j].low in ("and", "but", "so", ","):
            kind = tokens[j].low if tokens[j].low != "," else kind
            j += 1
        if j >= len(tokens):
            continue
        if re.match(
            r"(?:(?:and|but|so)\s+)?(?:if|unless|when|once|as soon as|should)\b",
            masked[at : token.start],
            re.IGNORECASE,
        ):
            at_condition = not re.search(r"[,:]", masked[at : token.start])
            if at_condition and token.low in (",", ":", "and"):
                continue
        if _ENDING.match(masked[tokens[j].start : end]):
            out.append((at, token.start, link))
            at, link = tokens[j].start, kind
            continue
        if (
            spoken is not None
            and i > spoken
            and not (
                kind == "but"
                or (token.low == "," and (_imperative(tokens, j, verbs) or tokens[j].low in _SUBJECTS))
            )
        ):
            continue
        if token.low == "or" and not _imperative(tokens, j, verbs):
            continue
        if token.low in (",", ":") and _STATE_FRAGMENT.match(masked[tokens[j].start : end]):
            out.append((at, token.start, link))
            at, link = tokens[j].start, "and"
            continue
        if _opens(tokens, j, verbs, comma=token.low == ",", conjunction=kind) or _fragments(tokens, at, i, j):
            out.append((at, token.start, link))
            at, link = tokens[j].start, kind
    out.append((at, end, link))
    return out


def _speech(tokens: list[Token]) -> int | None:
    """Index of the word with which reported or dictated speech begins (tell Rosa that …), or None."""
    for i, token in enumerate(tokens):
        if (
            token.low in ("that", "saying", "says", "whether")
            and i > 0
            and any(
                lemma(t.low)
                in (
                    "tell",
                    "notify",
                    "inform",
                    "say",
                    "message",
                    "remind",
                    "warn",
                    "write",
                    "let",
                    "alert",
                    "text",
                    "email",
                    "post",
                    "announce",
                    "send",
                    "ping",
                )
                for t in tokens[:i]
            )
        ):
            return i
    return None


def _opens(tokens: list[Token], j: int, verbs: frozenset[str], *, comma: bool, conjunction: str) -> bool:
    """Whether a clause can begin at token `j`."""
    if _imperative(tokens, j, verbs):
        return True
    low = tokens[j].low
    following = tokens[j + 1].low if j + 1 < len(tokens) else ""
    if low in ("if", "unless", "when", "once", "should") and j + 2 < len(tokens):
        return True
    if low in ("don't", "dont", "never", "not", "do") and (comma or conjunction in ("but", "and")):
        return low != "not" or following in verbs
    if low in ("can", "could", "would", "will") and following in ("you", "we"):
        return True
    if (
        low in ("what", "how", "which", "is", "are", "who", "where")
        and conjunction in ("and", "but", "so")
        and following not in ("kind", "room")
    ):
        return True
    if low in _SUBJECTS and following and (comma or conjunction in ("but", "so", "and")):
        return (
            low not in ("that", "this", "it", "you")
            or following in _FINITE
            or following.endswith(("s", "ed"))
            or comma
        )
    if comma or conjunction in ("but", "so", "and"):
        window = [t.low for t in tokens[j : j + 6]]
        if "," in window:
            window = window[: window.index(",")]
        return any(w in _FINITE for w in window[1:]) and (low in DETERMINERS or conjunction == "but" or comma)
    return False


def _imperative(tokens: list[Token], j: int, verbs: frozenset[str]) -> bool:
    while j < len(tokens) and (tokens[j].low in _ADVERBS or tokens[j].low == ","):
        j += 1
    if j >= len(tokens):
        return False
    low = tokens[j].low
    if low in ("let", "let's", "make", "give", "tell", "get", "have", "put", "take", "bring"):
        return True
    if low not in verbs:
        return False
    following = tokens[j + 1].low if j + 1 < len(tokens) else ""
    if following in (
        "is",
        "are",
        "was",
        "were",
        "has",
        "have",
        "had",
        "of",
        "will",
        "would",
        "should",
        "must",
        "can",
        "at",
        "to",
    ):
        return following in ("to", "at") and low not in ("speed", "power", "water", "light", "set")
    return following != "" or j > 0


def _fragments(tokens: list[Token], at: int, i: int, j: int) -> bool:
    """Bedroom to 18, office to 20: two verbless fragments, each with its own goal."""
    left = [t.low for t in tokens[:i] if t.start >= at]
    right = [t.low for t in tokens[j:]]
    goal = re.compile(r"(?:^| )(?:to|at|on|off) ?(?:\d|\w+$|\w+ (?:percent|degrees|%))")
    return bool(
        1 < len(right) <= 8
        and any(w in ("to", "at", "on", "off") for w in right[1:4])
        and any(w in ("to", "at", "on", "off") for w in left[1:])
        and goal.search(" ".join(right))
        and right[0] not in ("to", "at", "on", "for", "in")
    )


def _strip(masked: str, a: int, b: int) -> tuple[int, int]:
    while a < b and masked[a] in " ,;:.\n":
        a += 1
    while b > a and masked[b - 1] in " ,;:.!?\n":
        b -= 1
    return a, b


def split_reason(text: str) -> tuple[str, str]:
    """(what is asked, why) of a clause: "stop line 3 because the belt tore" -> ("stop line 3", "the belt tore")."""
    m = _REASON.search(text)
    return (text[: m.start()], text[m.end() :].strip(" .!")) if m else (text, "")
