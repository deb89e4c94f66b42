"""The allocator keeps freed blocks, although the worker process is older than its app settings."""

import json
import os
import subprocess
import sys

import pytest

from local.host_process import ROOT

LOAD = """
import json, os, resource, sys
from pathlib import Path
from local.protocol import Start
from local.worker import Worker

settings = {**os.environ, "D365_URL": "https://x.dynamics.com", "DataStorage": "UseDevelopmentStorage=true"}
Worker(Start(Path.cwd(), settings))
faults = []
for _ in range(8):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    blocks = [bytearray(16 << 20) for _ in range(6)]
    del blocks
    faults.append(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
print(json.dumps(faults))
os._exit(0)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="Azure runs it on Linux, where this is glibc's")
def test_blocks_that_were_freed_are_used_again() -> None:
    """The app is loaded as on Flex Consumption, by a reload; six of 16 MiB are 24,576 pages when they are
    new."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith("MALLOC_")}
    done = subprocess.run(
        [sys.executable, "-c", LOAD],
        cwd=ROOT,
        env=environment,
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    faults = json.loads(done.stdout.splitlines()[-1])
    assert max(faults[2:]) < 1000, faults
