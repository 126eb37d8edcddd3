"""The verbs of repositories, one module each."""
