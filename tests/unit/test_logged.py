"""What modules log is told as warnings are."""

from __future__ import annotations

import logging

from imprint.cli.logged import telling_logged


def test_what_is_logged_is_a_warning_in_one_line() -> None:
    """Fails if words of a device reach standard error as they are, or a traceback does."""
    told: list[str] = []
    log = logging.getLogger("imprint.storage.anything")
    with telling_logged(told.append):
        log.warning("%s: cannot be written", "/dev/sdx")
        log.info("nobody asks")
        try:
            raise ValueError("seven")
        except ValueError:
            log.exception("a request has failed")
    log.warning("nobody listens")
    assert told == [
        "warning: /dev/sdx: cannot be written",
        "warning: a request has failed: ValueError: seven",
    ]
