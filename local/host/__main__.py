"""`python -m local.host --settings FILE`."""

import os
import sys

from local.host import main

if __name__ == "__main__":
    code = main()
    # Threads that still run would keep the process alive. The host has already waited for their work.
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
