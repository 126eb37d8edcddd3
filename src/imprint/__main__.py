"""``python -m imprint``."""

import signal
import sys

if __name__ == "__main__":
    # Until the program listens to it, Ctrl-C has nothing to tidy: it ends us without a word.
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)

    from imprint.cli.main import main

    sys.exit(main())
