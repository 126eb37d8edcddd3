"""``python -m imprint``."""

import sys

from imprint.cli.main import main

sys.exit(main())
