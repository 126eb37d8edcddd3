"""The version of imprint: images and logs say what has written them."""

from __future__ import annotations

from typing import Final

VERSION: Final = "0.1.0"
