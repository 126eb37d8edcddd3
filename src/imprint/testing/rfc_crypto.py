"""X25519 and HKDF by the letter of their RFCs: slow, and owing nothing to any library.

Source: RFC 7748, section 5; RFC 5869, section 2.
"""

from __future__ import annotations

import hashlib
import hmac
from typing import Final

_PRIME: Final = 2**255 - 19
_A24: Final = 121665


def x25519(scalar: bytes, point: bytes = (9).to_bytes(32, "little")) -> bytes:
    """What two parties share: of one's private and the other's public key, 32 bytes each.

    With the point left out, it is the public key of ``scalar``.
    """
    k = int.from_bytes(scalar, "little")
    k = k & ~7 & (1 << 255) - 1 | 1 << 254
    x1 = int.from_bytes(point, "little") & (1 << 255) - 1
    x2, z2, x3, z3 = 1, 0, x1, 1
    swapped = 0
    for t in reversed(range(255)):
        bit = k >> t & 1
        if bit != swapped:
            x2, x3, z2, z3 = x3, x2, z3, z2
        swapped = bit
        a, b, c, d = x2 + z2, x2 - z2, x3 + z3, x3 - z3
        da, cb = d * a, c * b
        x3 = pow(da + cb, 2, _PRIME)
        z3 = x1 * pow(da - cb, 2, _PRIME) % _PRIME
        aa, bb = a * a % _PRIME, b * b % _PRIME
        e = aa - bb
        x2 = aa * bb % _PRIME
        z2 = e * (aa + _A24 * e) % _PRIME
    if swapped:
        x2, z2 = x3, z3
    return (x2 * pow(z2, _PRIME - 2, _PRIME) % _PRIME).to_bytes(32, "little")


def hkdf_sha256(secret: bytes, salt: bytes, info: bytes, size: int = 32) -> bytes:
    """``size`` bytes, derived from ``secret``."""
    key = hmac.new(salt, secret, hashlib.sha256).digest()
    block, output = b"", b""
    while len(output) < size:
        number = bytes([len(output) // 32 + 1])
        block = hmac.new(key, block + info + number, hashlib.sha256).digest()
        output += block
    return output[:size]
