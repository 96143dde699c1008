"""`python -m obert`: see `obert.cli`."""

import sys

from obert.cli import main

if __name__ == "__main__":
    sys.exit(main())
