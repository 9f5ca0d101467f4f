"""The bus: events over Valkey or Redis Streams. The only package that imports the Redis client.

Three ways to use it, all of them from one `Bus` a process:
  Outbox    post events without ever waiting; one task sends them in order, in batches, and again after an outage.
  Follower  read any number of streams from given positions, adding and dropping streams while it runs.
  Leases    claim calls from `work`, renew, release; a lease that lapses is claimed by another worker.

`streams` says how events lie on the bus, `client` how the Redis client is used.
"""

from __future__ import annotations

from calls.bus.follower import Follower
from calls.bus.handle import Bus
from calls.bus.leases import Lease, Leases
from calls.bus.outbox import Outbox
from calls.bus.streams import FROM_START, Message
from calls.events import CALLS, WORK

__all__ = ["CALLS", "FROM_START", "WORK", "Bus", "Follower", "Lease", "Leases", "Message", "Outbox"]
