"""The asyncio side of a registration: finds the way to the registrar (a name, a connection) and keeps it open."""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Callable

from telephony.sip.dialog import Hop
from telephony.sip.net import SipSockets
from telephony.sip.register import Registrar, Registration
from telephony.sip.transaction import Transactions

log = logging.getLogger(__name__)


class RegistrarLink:
    """`pump` sends what the transactions hold."""

    def __init__(
        self,
        account: Registrar,
        sockets: SipSockets,
        transactions: Transactions,
        contact: Callable[[Hop], str],
        pump: Callable[[], None],
    ) -> None:
        self._account = account
        self._sockets = sockets
        self._pump = pump
        self._registration = Registration(account, transactions, self._find_way, contact, self._changed)
        self._way: Hop | None = None
        self._seeking = False
        self._tasks: asyncio.TaskGroup | None = None

    @property
    def registered(self) -> bool:
        return self._registration.registered

    async def start(self, tasks: asyncio.TaskGroup) -> None:
        self._tasks = tasks
        await self._seek()
        self._registration.start(self._sockets.now())
        self._pump()

    def stop(self) -> None:
        self._registration.stop(self._sockets.now())

    def _changed(self, registered: bool, why: str) -> None:
        if registered:
            log.info("registered as %s with %s, %s", self._account.user, self._account.host, why)
        else:
            log.warning("not registered with %s: %s; trying again", self._account.host, why)
            self._way = None  # its address may have changed: look again, for the next try
            self._find_way()

    def _find_way(self) -> Hop | None:
        """The way, if it is known and open; else it is looked for, for the next try."""
        way = self._way
        if way is not None and (way.transport == "udp" or way.connection in self._sockets.connections):
            return way
        if not self._seeking and self._tasks is not None:
            self._tasks.create_task(self._seek())
        return None

    async def _seek(self) -> None:
        account = self._account
        family = socket.AF_INET6 if ":" in self._sockets.host else socket.AF_INET
        loop = asyncio.get_running_loop()
        self._seeking = True
        try:
            found = await loop.getaddrinfo(account.host, account.port, family=family, type=socket.SOCK_DGRAM)
            host, port = found[0][4][:2]
            if account.transport == "tcp":
                self._way = await self._sockets.connect(str(host), int(port))
            else:
                self._way = Hop("udp", str(host), int(port))
        except OSError as error:
            log.warning("no way to the registrar %s: %s", account.host, error)
        finally:
            self._seeking = False
