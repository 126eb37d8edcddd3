"""Reading all pages of an AFF image."""

from __future__ import annotations

from typing import TYPE_CHECKING

from imprint.core.errors import FormatError, UnsupportedFeatureError
from imprint.core.extent import Kind
from imprint.core.usage import findings
from imprint.formats.aff.layer import AffLayer
from imprint.formats.aff.opening import find

if TYPE_CHECKING:
    from collections.abc import Iterator

    from imprint.core.contracts import Opener, Storage
    from imprint.core.events import Finding
    from imprint.formats.aff.opening import Found


def check(storage: Storage, opener: Opener, *, repair: bool) -> Iterator[Finding]:
    """Whether each page is there and can be unpacked.

    Raises:
        UnsupportedFeatureError: for ``repair``: evidence is not changed.
        FormatError: if there is no disk to be found.
    """
    if repair:
        raise UnsupportedFeatureError("is evidence, which is never changed", name=storage.name)
    found = find(storage, opener)
    try:
        yield from findings(_problems(found))
    finally:
        found.close_others()


def _problems(found: Found) -> Iterator[tuple[str, str]]:
    for fault in (*found.contents.faults, *found.warnings):
        yield "file", fault
    layer = AffLayer(found)
    buffer = memoryview(bytearray(min(found.page_size, max(found.size, 1))))
    position = 0
    while position < found.size:
        end = min(found.size, (position // found.page_size + 1) * found.page_size)
        try:
            extent = layer.map(position, found.size - position)
            if extent.kind is Kind.BAD:
                yield f"disk at 0x{position:x}", f"expected {extent.length} bytes, found no page"
            elif extent.kind is Kind.ENCODED:
                unit = layer.unit(position)
                layer.decode(unit, buffer[: unit.length])
            position = extent.end
        except FormatError as failure:
            yield f"disk at 0x{position:x}", str(failure.args[0])
            position = end
