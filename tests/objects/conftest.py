"""Servers that the tests of this folder share."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from imprint.testing.object_servers import moto_server

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(scope="session")
def moto() -> Iterator[str]:
    """The URL of an S3 server."""
    pytest.importorskip("obstore")
    pytest.importorskip("moto")
    with moto_server() as endpoint:
        yield endpoint
