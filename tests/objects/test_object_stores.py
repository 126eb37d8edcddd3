"""The contract of places for objects, for each that needs nothing but this machine."""

from __future__ import annotations

from typing import TYPE_CHECKING

from imprint.objects.cached import CachedStore, CacheOptions
from imprint.objects.limited import LimitedStore
from imprint.objects.local import LocalStore
from imprint.objects.memory import MemoryStore
from imprint.objects.retrying import RetryingStore
from imprint.testing.object_suite import ObjectStoreContract

if TYPE_CHECKING:
    from pathlib import Path

    from imprint.objects.contract import ObjectStore


class TestMemory(ObjectStoreContract):
    def make(self, tmp_path: Path) -> ObjectStore:
        return MemoryStore()


class TestLocal(ObjectStoreContract):
    def make(self, tmp_path: Path) -> ObjectStore:
        return LocalStore(tmp_path / "repository")

    def another(self, store: ObjectStore, tmp_path: Path) -> ObjectStore:
        return LocalStore(tmp_path / "repository")


class TestRetrying(TestLocal):
    def make(self, tmp_path: Path) -> ObjectStore:
        return RetryingStore(super().make(tmp_path))


class TestLimited(TestLocal):
    def make(self, tmp_path: Path) -> ObjectStore:
        return LimitedStore(super().make(tmp_path), upload=1 << 30, download=1 << 30)


class TestCached(TestLocal):
    def make(self, tmp_path: Path) -> ObjectStore:
        return CachedStore(super().make(tmp_path), CacheOptions(tmp_path / "cache", 1 << 20))
