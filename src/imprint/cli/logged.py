"""What modules log, as warnings like all others: they have no console."""

from __future__ import annotations

import contextlib
import logging
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


class _Telling(logging.Handler):
    """Tells what is logged, in one line."""

    def __init__(self, tell: Callable[[str], None]) -> None:
        super().__init__(logging.WARNING)
        self._tell = tell

    def emit(self, record: logging.LogRecord) -> None:
        """Say it; of an exception, which it was."""
        error = record.exc_info[1] if record.exc_info else None
        reason = "" if error is None else f": {type(error).__name__}: {error}".removesuffix(": ")
        self._tell(f"warning: {record.getMessage()}{reason}")


@contextlib.contextmanager
def telling_logged(tell: Callable[[str], None]) -> Iterator[None]:
    """For the time inside, ``tell`` gets what would go to standard error as it is."""
    logger, handler = logging.getLogger("imprint"), _Telling(tell)
    logger.addHandler(handler)
    try:
        yield
    finally:
        logger.removeHandler(handler)
