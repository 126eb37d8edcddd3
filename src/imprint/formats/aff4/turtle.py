"""Turtle, as far as ``information.turtle`` needs it: triples in, nothing inferred.

Read: prefixes, base, IRIs, prefixed names, literals with datatypes and languages, numbers,
booleans, lists of predicates and objects, blank nodes, collections. Terms are told apart by
their last part, since AFF4 has had several namespaces and spellings for the same thing.

Source: W3C *RDF 1.1 Turtle*, section 6 (grammar).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, NamedTuple

from imprint.core.errors import CorruptImageError, UnsupportedFeatureError
from imprint.core.units import MIB

if TYPE_CHECKING:
    from collections.abc import Iterator

BYTES_MAX: Final = 4 * MIB
"""Of a description: those of disk images have below 100 KiB; a second of parsing at most."""

TRIPLES_MAX: Final = 100_000
_DEPTH_MAX: Final = 32

_TOKEN: Final = re.compile(
    r"""[ \t\r\n]+|\#[^\r\n]*
    |(?P<iri><[^<>"{}|^`\x00-\x20]*>)
    |(?P<text>\"\"\"(?:[^"\\]++|\\.|"(?!""))*+\"\"\"|'''(?:[^'\\]++|\\.|'(?!''))*+'''
        |"(?:[^"\\\r\n]++|\\.)*+"|'(?:[^'\\\r\n]++|\\.)*+')
    |(?P<type>\^\^)
    |(?P<prefix>@prefix\b|@base\b)
    |(?P<language>@[A-Za-z]+(?:-[A-Za-z0-9]+)*)
    |(?P<name>[^\s<>"'{}|^`\\\[\](),;@\#:]*+:
        (?:[^\s<>"'{}|^`\\\[\](),;@\#.]++|\.(?=[^\s;,.\])]))*+)
    |(?P<word>[-+A-Za-z0-9](?:[-+A-Za-z0-9_]++|\.(?=[0-9]))*+)
    |(?P<mark>[.;,\[\]()])""",
    re.VERBOSE | re.DOTALL,
)
_ESCAPE: Final = re.compile(r"\\(u[0-9A-Fa-f]{4}|U[0-9A-Fa-f]{8}|.)", re.DOTALL)
_ESCAPED: Final = {"t": "\t", "b": "\b", "n": "\n", "r": "\r", "f": "\f"}
_TYPE: Final = "http://www.w3.org/1999/02/22-rdf-syntax-ns#type"


class Term(NamedTuple):
    """What a statement says of its subject.

    Attributes:
        value: an IRI, or the text of a literal.
        datatype: last part of a literal's type in lower case; ``None`` of an IRI.
    """

    value: str
    datatype: str | None


@dataclass(frozen=True)
class Graph:
    """All statements: terms by subject, and by the folded name of the predicate."""

    subjects: dict[str, dict[str, list[Term]]]

    def values(self, subject: str, predicate: str) -> list[str]:
        """Of one predicate, in the order of the text."""
        return [term.value for term in self.terms(subject, predicate)]

    def terms(self, subject: str, predicate: str) -> list[Term]:
        """The same with their datatypes."""
        return self.subjects.get(subject, {}).get(predicate, [])

    def first(self, subject: str, *predicates: str) -> str | None:
        """The first value of the first of these predicates that there is."""
        for predicate in predicates:
            for value in self.values(subject, predicate):
                return value
        return None

    def kinds(self, subject: str) -> set[str]:
        """Folded names of its types."""
        return {folded(value) for value in self.values(subject, "type")}

    def of_kind(self, *kinds: str) -> list[str]:
        """Subjects with one of these types, in the order of the text."""
        return [subject for subject in self.subjects if not self.kinds(subject).isdisjoint(kinds)]


def folded(iri: str) -> str:
    """The last part of an IRI, in lower case and without underscores."""
    return re.split(r"[#/]", iri)[-1].replace("_", "").lower()


def parse(content: bytes, *, where: str) -> Graph:
    """The statements of a document.

    Args:
        content: UTF-8.
        where: the image's name, for errors.

    Raises:
        CorruptImageError: if it is not Turtle.
        UnsupportedFeatureError: if there is more of it than any image has.
    """
    if len(content) > BYTES_MAX:
        raise UnsupportedFeatureError(
            f"expected a description of at most {BYTES_MAX} bytes, found {len(content)}",
            name=where,
        )
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as failure:
        raise CorruptImageError(
            f"expected a description in UTF-8: {failure.reason}", name=where
        ) from failure
    return Graph(_Parser(text, where).run())


class _Parser:
    """Recursive descent with one token of lookahead."""

    def __init__(self, text: str, where: str) -> None:
        self._where = where
        self._tokens = self._tokenize(text)
        self._prefixes: dict[str, str] = {}
        self._base = ""
        self._subjects: dict[str, dict[str, list[Term]]] = {}
        self._count = 0
        self._blank = 0
        self._depth = 0
        self._kind, self._current = next(self._tokens)

    def run(self) -> dict[str, dict[str, list[Term]]]:
        """Read all of it."""
        while self._kind != "end":
            if self._kind == "prefix" or (
                self._kind == "word" and self._current.upper() in ("PREFIX", "BASE")
            ):
                self._directive()
                continue
            if self._current == "[":
                subject = self._node().value
                if self._current != ".":
                    self._predicates(subject)
            else:
                subject = self._node().value
                self._predicates(subject)
            self._expect(".")
        return self._subjects

    def _tokenize(self, text: str) -> Iterator[tuple[str, str]]:
        position = 0
        while position < len(text):
            match = _TOKEN.match(text, position)
            if match is None:
                raise self._error(repr(text[position : position + 20]))
            position = match.end()
            if match.lastgroup is not None:
                yield match.lastgroup, match.group()
        yield "end", "the end"

    def _next(self) -> str:
        token = self._current
        self._kind, self._current = next(self._tokens)
        return token

    def _expect(self, mark: str) -> None:
        if self._kind != "mark" or self._current != mark:
            raise self._error(self._current, f"{mark!r} in the description")
        self._next()

    def _directive(self) -> None:
        word = self._next()
        if word.lstrip("@").lower() == "prefix":
            if self._kind != "name" or not self._current.endswith(":"):
                raise self._error(self._current)
            prefix = self._next()[:-1]
            self._prefixes[prefix] = self._iri()
        else:
            self._base = self._iri()
        if word.startswith("@"):
            self._expect(".")

    def _iri(self) -> str:
        if self._kind != "iri":
            raise self._error(self._current)
        iri = _unescaped(self._next()[1:-1])
        return iri if ":" in iri else self._base + iri

    def _predicates(self, subject: str) -> None:
        """A list of predicates with their objects, up to what ends it."""
        while True:
            if self._kind == "word" and self._current == "a":
                self._next()
                predicate = _TYPE
            else:
                predicate = self._node().value
            while True:
                self._add(subject, folded(predicate), self._node())
                if self._current != "," or self._kind != "mark":
                    break
                self._next()
            if self._kind != "mark" or self._current != ";":
                return
            while self._kind == "mark" and self._current == ";":
                self._next()
            if self._kind == "mark" and self._current in ".]":
                return

    def _add(self, subject: str, predicate: str, term: Term) -> None:
        self._count += 1
        if self._count > TRIPLES_MAX:
            raise UnsupportedFeatureError(
                f"expected at most {TRIPLES_MAX} statements in the description", name=self._where
            )
        self._subjects.setdefault(subject, {}).setdefault(predicate, []).append(term)

    def _node(self) -> Term:
        """One term: subject, predicate or object."""
        kind = self._kind
        if kind == "iri":
            return Term(self._iri(), None)
        if kind == "name":
            return Term(self._prefixed(self._next()), None)
        if kind == "text":
            return self._literal()
        if kind == "word":
            word = self._next()
            return Term(word, "boolean" if word in ("true", "false") else "decimal")
        if kind == "mark" and self._current in "[(":
            return self._nested()
        raise self._error(self._current)

    def _nested(self) -> Term:
        """A blank node with its own statements, or a collection, whose members are dropped."""
        self._depth += 1
        if self._depth > _DEPTH_MAX:
            raise UnsupportedFeatureError(
                f"expected at most {_DEPTH_MAX} nested nodes in the description", name=self._where
            )
        self._blank += 1
        name = f"_:nested{self._blank}"
        if self._next() == "[":
            if self._current != "]":
                self._predicates(name)
            self._expect("]")
        else:
            while self._kind != "mark" or self._current != ")":
                self._node()
            self._next()
        self._depth -= 1
        return Term(name, None)

    def _literal(self) -> Term:
        token = self._next()
        quotes = 3 if token[:3] in ('"""', "'''") and len(token) >= 6 else 1
        value = _unescaped(token[quotes:-quotes])
        datatype = "string"
        if self._kind == "type":
            self._next()
            datatype = folded(self._node().value)
        elif self._kind == "language":
            self._next()
        return Term(value, datatype)

    def _prefixed(self, name: str) -> str:
        prefix, _, local = name.partition(":")
        if prefix == "_":
            return name
        if prefix not in self._prefixes:
            raise self._error(f"the prefix {prefix!r}")
        return self._prefixes[prefix] + local

    def _error(self, found: str, expected: str = "Turtle in the description") -> CorruptImageError:
        return CorruptImageError(f"expected {expected}, found {found[:40]}", name=self._where)


def _unescaped(text: str) -> str:
    if "\\" not in text:
        return text

    def plain(match: re.Match[str]) -> str:
        code = match.group(1)
        if code[0] in "uU" and len(code) > 1:
            number = int(code[1:], 16)
            return chr(number) if number < 0x110000 else "\ufffd"
        return _ESCAPED.get(code, code)

    return _ESCAPE.sub(plain, text)
