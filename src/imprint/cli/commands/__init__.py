"""One module for each verb: ``EXAMPLES``, ``configure`` (its arguments) and ``run``."""
