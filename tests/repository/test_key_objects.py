"""Key objects that were damaged, or made to do harm."""

from __future__ import annotations

import json
import random
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from imprint.core.errors import PassphraseError, RepositoryError
from imprint.repository.key_objects import KeyObject
from imprint.testing.format_faults import bounded_memory
from imprint.testing.repository_keys import SECRETS, is_cheap, key_of, unlocked


def changed_object(**changes: object) -> bytes:
    """A key object with other values; those of ``kdf`` begin with ``kdf_``."""
    values = json.loads(key_of(b"pw").encode())
    for key, value in changes.items():
        inner, _, rest = key.partition("kdf_")
        (values if inner else values["kdf"])[inner or rest] = value
    return json.dumps(values).encode()


@pytest.mark.parametrize(
    "changes",
    [
        {"kdf_memory_kib": 1024 * 1024 + 1},
        {"kdf_memory_kib": 1 << 62},
        {"kdf_memory_kib": 10**4000},
        {"kdf_memory_kib": 7},
        {"kdf_memory_kib": -1},
        {"kdf_memory_kib": 65536.0},
        {"kdf_memory_kib": True},
        {"kdf_passes": 65},
        {"kdf_passes": 0},
        {"kdf_passes": None},
        {"kdf_lanes": 17},
        {"kdf_lanes": 0},
        {"kdf_lanes": 2},
        {"kdf_name": "argon2i"},
        {"kdf_salt": ""},
        {"kdf_salt": "00" * 31},
        {"kdf_salt": "0" * 65},
        {"kdf_salt": "zz" * 32},
        {"kdf_salt": 5},
        {"kdf": []},
        {"kdf": None},
        {"nonce": "00" * 11},
        {"nonce": "٣٣" * 12},
        {"wrapped": ""},
        {"wrapped": "00" * 15},
        {"wrapped": "00" * 1025},
        {"wrapped": "AB" * 100},
        {"rights": "root"},
        {"rights": ["full"]},
        {"source": "card"},
        {"version": 2},
        {"version": 0},
        {"version": "one"},
        {"label": "a\nb"},
        {"label": "\x1b[2J"},
        {"label": "\ud800"},
        {"label": "x" * 201},
        {"label": 1},
        {"created": "\r"},
        {"created": {}},
    ],
    ids=str,
)
def test_absurd_keys_are_refused_at_once(changes: dict[str, object]) -> None:
    """Broken: a store could take hours, or all memory, of those who unlock."""
    with bounded_memory(16 << 20), pytest.raises(RepositoryError, match=r"^keys/0"):
        KeyObject.parse(changed_object(**changes), "keys/" + "0" * 16)


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"[]", b"null", b"\xff", b"[" * 16000, b'{"version":1', b'{"version":NaN}'],
)
def test_what_is_no_json_object_is_no_key(content: bytes) -> None:
    """Broken: damage would end in a traceback."""
    with pytest.raises(RepositoryError, match=r"^keys/0"):
        KeyObject.parse(content, "keys/" + "0" * 16)


def test_a_large_object_is_no_key() -> None:
    """Broken: JSON of any length would be parsed, at 30 times its length in memory."""
    with pytest.raises(RepositoryError, match="found 20"):
        KeyObject.parse(changed_object(label="x") + b" " * 20000, "keys/" + "0" * 16)


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=6,
)
FIELDS = [
    *("created", "kdf", "label", "nonce", "rights", "source", "version", "wrapped"),
    *("kdf_name", "kdf_memory_kib", "kdf_passes", "kdf_lanes", "kdf_salt"),
]


@settings(max_examples=150, deadline=None)
@given(field=st.sampled_from(FIELDS), value=JSON_VALUES, name=st.text(max_size=6))
def test_any_value_in_a_key_is_refused_or_harmless(field: str, value: object, name: str) -> None:
    """Broken: hostile values would end in a traceback."""
    content = changed_object(**{field: value})
    with pytest.raises(RepositoryError):
        KeyObject.parse(content, name)
    try:
        key = KeyObject.parse(content, "keys/" + "0" * 16)
    except RepositoryError:
        return
    if is_cheap(key):
        assert KeyObject.parse(key.encode(), key.name) == key


@settings(max_examples=200, deadline=None)
@given(st.integers(0, 2**32))
def test_any_damage_to_a_key_is_refused_or_does_not_unlock_anything_else(seed: int) -> None:
    """Broken: damaged bytes would end in a traceback, or in other secrets."""
    random_ = random.Random(seed)
    content = bytearray(key_of(b"pw").encode())
    for _ in range(random_.randint(1, 3)):
        content[random_.randrange(len(content))] = random_.choice(b'0123456789abcdef"{}[],:\0\xff')
    content = content[: random_.choice([None, random_.randrange(len(content))])]
    try:
        key = KeyObject.parse(bytes(content), "keys/" + "0" * 16)
        if is_cheap(key):
            assert replace(unlocked([key], b"pw"), unlocked_by="") == SECRETS
    except (RepositoryError, PassphraseError):
        pass
