"""Where bytes live. Each module holds one kind of storage."""
