"""The deduplicating repository. Its format: ``docs/repository-format.md``."""
