"""`python -m obert`: see `obert.commands.cli`."""

import sys

from obert.commands.cli import main

if __name__ == "__main__":
    sys.exit(main())
