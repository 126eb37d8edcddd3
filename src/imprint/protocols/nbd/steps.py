"""Negotiation as generators that yield what they need; :func:`drive` does it over a connection."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass
from typing import Protocol, TypeAlias, TypeVar

T = TypeVar("T")


@dataclass(frozen=True)
class Send:
    """Send ``data``."""

    data: bytes


@dataclass(frozen=True)
class Receive:
    """Receive exactly ``length`` bytes, and hand them in."""

    length: int


@dataclass(frozen=True)
class Secure:
    """Begin TLS now; all that follows goes through it."""


Step: TypeAlias = Send | Receive | Secure
Negotiation: TypeAlias = Generator[Step, bytes, T]
"""Yields steps; is sent the bytes that a :class:`Receive` has asked for, else nothing."""


class Connection(Protocol):
    """What a negotiation is driven over."""

    def send(self, *parts: bytes) -> None:
        """Send all of it."""

    def receive(self, length: int) -> bytes:
        """Exactly so many bytes."""


class Securing(Protocol):
    """Turns a connection into one that is encrypted."""

    def __call__(self) -> None:
        """Shake hands for TLS."""


def drive(negotiation: Negotiation[T], connection: Connection, secure: Securing) -> T:
    """Carry a negotiation out; gives what it has come to.

    Raises:
        OSError: whatever the connection raises.
        ImagingError: whatever the negotiation raises.
    """
    given = b""
    try:
        step = next(negotiation)
        while True:
            given = b""
            if isinstance(step, Send):
                connection.send(step.data)
            elif isinstance(step, Receive):
                given = connection.receive(step.length)
            else:
                secure()
            step = negotiation.send(given)
    except StopIteration as end:
        result: T = end.value
        return result
    finally:
        negotiation.close()
