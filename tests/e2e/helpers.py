"""What the end-to-end tests share, apart from fixtures."""

import contextlib
from collections.abc import Callable

from local.host_process import RunningHost

NEVER = "0 0 0 1 1 *"
"""A timer that a test runs by hand."""

type Start = Callable[..., contextlib.AbstractContextManager[RunningHost]]
