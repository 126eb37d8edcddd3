"""Waiting for a machine: it is switched off when that is asked for, and nothing waits longer."""

from __future__ import annotations

import sys
import threading

import pytest

from imprint.core.cancel import CancelToken
from imprint.core.errors import Cancelled
from imprint.endpoints.emulator import running
from imprint.endpoints.emulator.machine import Display

STUBBORN = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(600)"
WILLING = "import time; time.sleep(600)"


def cancelled() -> CancelToken:
    token = CancelToken()
    token.cancel()
    return token


@pytest.mark.parametrize("program", [STUBBORN, WILLING])
def test_a_machine_that_is_to_end_does(program: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Fails if one that does not end goes on, or something still waits for one that has ended."""
    monkeypatch.setattr(running, "_QUIT_S", 0.5 if program is STUBBORN else 600.0)
    with pytest.raises(Cancelled):
        running._wait_for([sys.executable, "-c", program], Display.NONE, None, cancelled())
    timers = [item for item in threading.enumerate() if isinstance(item, threading.Timer)]
    assert not timers  # one would keep the program from ending
