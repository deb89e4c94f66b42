"""The trigger host: stands in for the Azure Functions host, for one app on one machine.

The app runs in the real worker library (`local/worker.py`), in a process for each group of functions that
Flex Consumption scales by itself. This package does what the host does around the app, on the storage that the
app settings name: timers, the blob trigger's webhook and its internal queue, queues with visibility, dequeue
count and poison queue, HTTP with keys. Differences from the real host, all on purpose:

- Azurite has no Event Grid. `event_grid.py` stands in for it, and keeps in the host's storage which events it
  has delivered.
- The host makes missing containers and queues at its start; in Azure `infra/` makes them.
- There is one process for each group of functions, and one host for all of them: nothing scales.
- Keys are new at each start; the first line on stdout has them.
- If several hosts use one storage account, each of them runs all timers: no lease leaves them to one host.
- `POST /admin/functions/{name}` runs a function at once, as in the real host; with `?wait=true` it answers
  when the function has ended. `POST /admin/host/events {"deliver": false}` loses blob events, for tests.
"""

from local.host.command import main

__all__ = ["main"]
