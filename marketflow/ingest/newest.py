"""What a venue without heartbeats traded last, asked by REST: how the loss of the last trade before a silence is seen.

A feed learns that a trade is missing from the id of the next one. Where the next one is long in coming (a quiet
product, a socket that is open and says nothing) only the venue can say that there was one.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

from marketflow.errors import HistoryError, VenueError
from marketflow.ingest.holes import HoleKeeper
from marketflow.ingest.logs import log
from marketflow.ingest.metrics import Metrics
from marketflow.ingest.rest import RestClient

EVERY_S = 30.0
# after a connection or a lost message: what is on its way shall have arrived
SOON_S = 2.0


class NewestIds:
    """Asks for the newest id of every product at an interval, and soon after `look_soon`.

    `behind` says whether messages wait between socket and tracker: what is missing then may be among them.
    """

    def __init__(
        self,
        client: RestClient,
        holes: HoleKeeper,
        products: Sequence[str],
        metrics: Metrics,
        behind: Callable[[], bool],
        *,
        every_s: float = EVERY_S,
    ) -> None:
        self._client = client
        self._holes = holes
        self._products = products
        self._metrics = metrics
        self._behind = behind
        self._every_s = every_s
        self._wanted = asyncio.Event()

    def look_soon(self) -> None:
        """Something may have been lost."""
        self._wanted.set()

    async def run(self) -> None:
        """Ask for ever; cancel it to end. A venue that does not answer is asked again next time."""
        while True:
            try:
                async with asyncio.timeout(self._every_s):
                    await self._wanted.wait()
                await asyncio.sleep(SOON_S)
            except TimeoutError:
                pass  # the usual time has come
            self._wanted.clear()
            for product_id in self._products:
                await self._look(product_id)

    async def _look(self, product_id: str) -> None:
        try:
            newest = await self._client.newest_id(product_id)
        except (VenueError, HistoryError) as error:
            self._metrics.polls.labels(self._metrics.venue, "none").inc()
            log("newest_unknown", product_id=product_id, why=str(error))
            return
        self._metrics.polls.labels(self._metrics.venue, "200").inc()
        await self._holes.announced(product_id, newest, self._behind)
