"""The command line. Only this package parses arguments, reads the environment and prints."""
