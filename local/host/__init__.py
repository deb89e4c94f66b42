"""The trigger host: plays the part of the Azure Functions host for one app on one machine.

The app runs in the real worker library (`local/worker.py`); what the host does around it is played
here, against the storage that the app settings name: timers, blob events, the queue with visibility,
dequeue count and poison queue, HTTP. Differences from the real host, all on purpose:

- Azurite has no Event Grid, so containers are polled, and each new ETag is an event. As with Event Grid an
  event may come twice (after a restart every blob's comes again), and it names the blob alone, not the version.
- Containers and queues that are missing are made at the start, as `infra/` does in Azure.
- One process, no scaling; an invocation that outlasts `functionTimeout` is reported, but no thread is ended.
- Function keys: none is asked for, as with Core Tools.
- `POST /admin/functions/{name}` runs a function at once, as the real host's does; with `?wait=true` it answers
  when the function has ended. `POST /admin/host/events {"deliver": false}` loses blob events, for tests.
"""

from local.host.command import main

__all__ = ["main"]
