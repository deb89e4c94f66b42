"""`python -m local.host --settings FILE`."""

import os
import sys

from local.host import main

if __name__ == "__main__":
    code = main()
    # Threads of the worker and of pools would keep the process; what they had to end has ended.
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
