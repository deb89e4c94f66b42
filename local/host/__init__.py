"""The trigger host: plays the part of the Azure Functions host for one app on one machine.

The app runs in the real worker library (`local/worker.py`), in a process for each group of functions that
Flex Consumption scales by itself; what the host does around it is played here, against the storage that the
app settings name: timers, the blob trigger's webhook and its internal queue, queues with visibility, dequeue
count and poison queue, HTTP with keys. Differences from the real host, all on purpose:

- Azurite has no Event Grid, so it is played here (`event_grid.py`), and what it delivered is kept in the
  host's storage.
- Containers and queues that are missing are made at the start, as `infra/` does in Azure.
- One process for each group of functions, and one host for all of them: nothing scales.
- Keys are made anew at each start; the first line on stdout tells them.
- Of several hosts on one storage account each runs its timers: no lease keeps them to one.
- `POST /admin/functions/{name}` runs a function at once, as the real host's does; with `?wait=true` it answers
  when the function has ended. `POST /admin/host/events {"deliver": false}` loses blob events, for tests.
"""

from local.host.command import main

__all__ = ["main"]
