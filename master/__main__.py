"""`python -m millrace.master`, the same as the `millrace` command. Read next: `master/operator/cli.py`."""

import sys

from millrace.master.operator.cli import main

if __name__ == "__main__":
    sys.exit(main())
