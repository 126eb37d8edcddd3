"""Where formats, storages and copies meet: addresses, the gate for references, opening, jobs."""
