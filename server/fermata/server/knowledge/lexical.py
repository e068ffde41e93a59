"""How many of a question's words a passage has, where rare words and codes count most.

A sentence embedding knows what a text is about and can hardly tell alarm E-217 from E-271. The score here is
the share of the question's words, weighted by BM25's inverse document frequency (Robertson and Zaragoza 2009,
eq. 3.2) over the passages that are compared; codes count ``CODE_WEIGHT`` times. Term frequency is left out:
in passages of a hundred words it says little.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence

CODE_WEIGHT = 3.0
_WORD = re.compile(r"[^\W_]+(?:[-_./:][^\W_]+)*", re.UNICODE)
_STOP_WORDS = frozenset(
    re.findall(
        r"\w+",
        """a an and are as at be by can do does for from has have how i if in is it its me my not of on or our shall
        should so that the their then there this to us was we what when where which who why will with you your""",
    )
)


def words(text: str) -> set[str]:
    """The words of a text in lower case, plural endings off, without those that every text has. A code with
    hyphens, dots or slashes is one word, and its parts are words as well."""
    found: set[str] = set()
    for match in _WORD.findall(text.lower()):
        parts = re.split(r"[-_./:]", match)
        found.update(_stem(word) for word in ({match, *parts} if len(parts) > 1 else {match}))
    return found - _STOP_WORDS


def codes(text: str) -> list[str]:
    """What a question names letter for letter: words of letters with digits, or of capitals joined by hyphens
    (``E-217``, ``VIB-HIGH``, ``db-2``), as they are written there, once each."""
    found = dict.fromkeys(match for match in _WORD.findall(text) if _is_code(match))
    return list(found)


def lexical_scores(question: str, passages: Sequence[str]) -> list[float]:
    """For each passage the weighted share of the question's words that it has, 0 to 1."""
    asked = sorted(words(question))
    have = [words(passage) for passage in passages]
    exact = {code.lower() for code in codes(question)}
    weights = {
        word: _idf(sum(word in bag for bag in have), len(have)) * (CODE_WEIGHT if word in exact else 1.0)
        for word in asked
    }
    total = sum(weights.values())
    if total <= 0:
        return [0.0] * len(passages)
    return [sum(weights[word] for word in asked if word in bag) / total for bag in have]


def _idf(containing: int, count: int) -> float:
    return math.log(1 + (count - containing + 0.5) / (containing + 0.5))


def _is_code(word: str) -> bool:
    letters = any(character.isalpha() for character in word)
    digits = any(character.isdigit() for character in word)
    return letters and (digits or ("-" in word and word.isupper()))


def _stem(word: str) -> str:
    return word[:-1] if len(word) > 3 and word.endswith("s") and not word.endswith("ss") else word
