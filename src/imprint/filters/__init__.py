"""Sources and targets that wrap another one, one to a file."""
