"""`python -m marketflow.verify`."""

from __future__ import annotations

import sys

from marketflow.verify.command import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
