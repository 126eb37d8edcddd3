"""The evidence log for people."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final

from imprint.core.units import counted

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

_WIDTH: Final = 22
_LEFT_OUT: Final = ("kind", "version", "earlier", "smart", "bad", "findings", "pieces", "targets")


def render_text(facts: Mapping[str, Any]) -> str:
    """All of a log, its earlier sessions last, one fact on each line."""
    lines = list(_session(facts))
    for earlier in facts["earlier"]:
        try:
            told = list(_session(earlier))
        except (AttributeError, KeyError, TypeError):  # somebody has edited the log
            told = [_shown(line) for line in json.dumps(earlier, indent=1).splitlines()]
        lines += ["", "", "=== an earlier session ===", *told]
    return "".join(f"{line}\n" for line in lines)


def _session(facts: Mapping[str, Any]) -> Iterator[str]:
    yield "imprint evidence log"
    yield ""
    for name, value in facts.items():
        if name not in _LEFT_OUT:
            yield from _fact(name, value, 0)
    for target in facts.get("targets", ()):
        yield ""
        yield from _fact("target", target, 0)
    yield from _bad(facts)
    yield from _section("hashes of pieces", [_piece(piece) for piece in facts.get("pieces", ())])
    said = [
        f"{found['severity']}: {found['where']}: {found['what']}"
        for found in facts.get("findings", ())
    ]
    yield from _section("findings", said)
    for when, answer in facts.get("smart", {}).items():
        text = "unknown" if answer is None else json.dumps(answer, indent=1)
        yield from _section(f"SMART {when}", text.splitlines())


def _fact(name: str, value: object, depth: int) -> Iterator[str]:
    label = "  " * depth + _shown(str(name).replace("_", " "))
    if isinstance(value, dict):
        yield f"{label}:"
        for inner, fact in value.items():
            yield from _fact(inner, fact, depth + 1)
        return
    if isinstance(value, list | tuple):
        value = " ".join(map(_word, value))
    elif isinstance(value, bool):
        value = "yes" if value else "no"
    text = "-" if value is None or value == "" else _shown(str(value))
    yield f"{label + ':':<{_WIDTH}} {text}"


def _word(value: object) -> str:
    text = value if isinstance(value, str) else json.dumps(value)
    return f"'{text}'" if " " in text and isinstance(value, str) else text


def _bad(facts: Mapping[str, Any]) -> Iterator[str]:
    areas = facts.get("bad", ())
    sector = facts.get("sector_size")
    lines = [
        f"sectors {area['first_sector']} to {area['last_sector']} of {sector} bytes: "
        f"{area['length']} bytes at {area['offset']}"
        for area in areas
    ]
    lines += [f"{sum(area['length'] for area in areas)} bytes in {counted(len(areas), 'area')}"]
    yield from _section("could not be read", lines)


def _piece(piece: Mapping[str, Any]) -> str:
    hashes = " ".join(f"{name} {digest}" for name, digest in piece["hashes"].items())
    return f"{piece['length']} bytes at {piece['offset']}: {hashes}"


def _section(title: str, lines: list[str]) -> Iterator[str]:
    yield ""
    yield f"{title}:"
    yield from (f"  {_shown(line)}" for line in lines or ["none"])


def _shown(text: str) -> str:
    """What a drive says of itself cannot steer a terminal, nor begin a line."""
    return "".join(char if char.isprintable() else "\N{REPLACEMENT CHARACTER}" for char in text)
