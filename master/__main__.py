"""`python -m master`, the same as the `millrace` command. Read next: `master/cli.py`."""

import sys

from master.cli import main

if __name__ == "__main__":
    sys.exit(main())
