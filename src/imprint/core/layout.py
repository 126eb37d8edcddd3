"""On-disk structures, declared as the specification's table prints them.

::

    class Header(Structure, size=512, endian="<"):
        signature: int = uint(4, at=0x040, doc="SIGNATURE")
        image_uuid: bytes = raw(16, at=0x188, doc="of this image")

Fields may stand in any order; gaps are padding that packs as zeros; an overlap, or a field
behind the end, fails when the class is made. ``unpack`` gives an immutable record. A subclass
has the fields of its base, so that a structure that comes in both byte orders is declared once.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, Self

from imprint.core.errors import CorruptImageError, FormatError, TruncatedImageError

_CODES = {1: "B", 2: "H", 4: "I", 8: "Q"}


@dataclass(frozen=True)
class Field:
    """Place and type of one member."""

    code: str
    size: int
    at: int
    doc: str
    default: int | bytes


def uint(size: Literal[1, 2, 4, 8], *, at: int, doc: str, default: int = 0) -> Any:
    """An unsigned integer of ``size`` bytes at byte ``at`` of the structure."""
    return Field(_CODES[size], size, at, doc, default)


def sint(size: Literal[1, 2, 4, 8], *, at: int, doc: str, default: int = 0) -> Any:
    """A signed integer of ``size`` bytes at byte ``at`` of the structure."""
    return Field(_CODES[size].lower(), size, at, doc, default)


def raw(size: int, *, at: int, doc: str) -> Any:
    """``size`` bytes as they are, zeros by default."""
    return Field(f"{size}s", size, at, doc, bytes(size))


class Structure:
    """Base of all declared structures; see the module for how to declare one."""

    SIZE: ClassVar[int]
    FIELDS: ClassVar[dict[str, Field]]
    _struct: ClassVar[struct.Struct]
    _names: ClassVar[tuple[str, ...]]

    def __init_subclass__(cls, *, size: int, endian: Literal["<", ">"]) -> None:
        super().__init_subclass__()
        fields = {name: value for name, value in vars(cls).items() if isinstance(value, Field)}
        cls.SIZE = size
        cls.FIELDS = {**getattr(cls, "FIELDS", {}), **fields}
        in_order = sorted(cls.FIELDS.items(), key=lambda item: item[1].at)
        cls._names = tuple(name for name, _ in in_order)
        cls._struct = struct.Struct(endian + _struct_format(cls.__name__, in_order, size))
        for name in fields:
            delattr(cls, name)

    def __init__(self, **values: Any) -> None:
        """Members that are not given have their declared default, usually zero."""
        unknown = values.keys() - self.FIELDS.keys()
        if unknown:
            raise TypeError(f"{type(self).__name__} has no field {', '.join(sorted(unknown))}")
        members = {name: values.get(name, field.default) for name, field in self.FIELDS.items()}
        self.__dict__.update(members)

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError(f"{type(self).__name__} is immutable: use replace()")

    def __eq__(self, other: object) -> bool:
        if type(other) is not type(self):
            return NotImplemented
        return self.__dict__ == other.__dict__

    def __hash__(self) -> int:
        return hash(tuple(self.__dict__.items()))

    def __repr__(self) -> str:
        members = ", ".join(f"{name}={value!r}" for name, value in self.__dict__.items())
        return f"{type(self).__name__}({members})"

    @classmethod
    def unpack(cls, data: bytes | bytearray | memoryview, *, where: str = "") -> Self:
        """Read the structure from the start of ``data``; what lies behind it is ignored.

        Raises:
            TruncatedImageError: if ``data`` is too short; ``where`` names the image.
        """
        if len(data) < cls.SIZE:
            raise TruncatedImageError(
                f"{cls.__name__}: expected {cls.SIZE} bytes, found {len(data)}",
                name=where or None,
            )
        return cls(**dict(zip(cls._names, cls._struct.unpack_from(data), strict=True)))

    def pack(self) -> bytes:
        """The structure as it stands on the disk, ``SIZE`` bytes."""
        return self._struct.pack(*(self.__dict__[name] for name in self._names))

    def replace(self, **changes: Any) -> Self:
        """A copy with some members changed."""
        return type(self)(**{**self.__dict__, **changes})

    def require(
        self,
        field: str,
        holds: bool,
        expected: str,
        *,
        where: str,
        at: int = 0,
        error: type[FormatError] = CorruptImageError,
    ) -> None:
        """Refuse the image unless ``holds``.

        Args:
            field: the member that is wrong.
            holds: what has to be true.
            expected: completes the sentence "expected …".
            where: the image's name.
            at: where the structure begins in it.
            error: what to raise.
        """
        if holds:
            return
        value = self.__dict__[field]
        found = f"0x{value:x}" if isinstance(value, int) else repr(value)
        offset = at + self.FIELDS[field].at
        raise error(
            f"{type(self).__name__}.{field} at 0x{offset:x}: expected {expected}, found {found}",
            name=where,
            offset=offset,
        )


def _struct_format(name: str, fields: list[tuple[str, Field]], size: int) -> str:
    """The ``struct`` format of fields in order of their place, gaps as padding."""
    parts, position = [], 0
    for field_name, field in fields:
        if field.at < position:
            raise TypeError(f"{name}.{field_name} overlaps the field before it")
        parts.append(f"{field.at - position}x{field.code}")
        position = field.at + field.size
    if position > size:
        raise TypeError(f"{name} is longer than its {size} bytes")
    return "".join(parts) + f"{size - position}x"
