"""What is kept of what was made lately."""

from __future__ import annotations

from imprint.core.recent import Recent


def test_what_was_not_used_for_longest_is_forgotten_first() -> None:
    """Fails if more is kept than allowed, or what is in use is lost."""
    kept: Recent[str] = Recent(30)
    for name in "abc":
        kept.put(name, name.encode() * 10)
    assert kept.get("a") == b"a" * 10
    kept.put("d", b"d" * 10)
    assert kept.get("b") is None
    assert kept.get("a") == b"a" * 10
    kept.put("a", b"z")
    kept.put("e", b"e" * 9)
    assert [kept.get(name) is not None for name in "acde"] == [True, True, True, True]
    kept.put("large", bytes(100))
    assert kept.get("large") == bytes(100)
    assert kept.get("a") is None
    kept.clear()
    assert kept.get("large") is None
