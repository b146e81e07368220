"""A ServerApp at work, as the hub's driver sees it: it asks for exchanges, and is told means.

The driver runs one masked round for each exchange. The model that counts is the driver's (`rule.mean`), from the sums;
what the app keeps in its process is lost with it.

    async with await open_session(workers, fab, run=7, sites=4, run_config={}) as session:
        model = None
        async for exchange in session:
            start = exchange.model if model is None else model     # the platform's own numbers, when they `follow`
            total, weight, sites = await masked_round(start, exchange.config)
            model = rule.mean(start, total, weight)
            await session.reply(model, weight, sites)
    # `model` is the result

"""

from collections.abc import AsyncIterator, Mapping
from types import TracebackType
from typing import Final, Self

import msgspec

from paroma.kernel.errors import BadInput
from paroma.kernel.wire.framing import pack, unpack
from paroma.learn.flower import rule
from paroma.learn.flower.messages import Exchange, Mean, Model, Scalar, ServeRequest, Shape
from paroma.learn.flower.names import SERVE
from paroma.learn.sandbox.task import Conversation, Finished, Limits, Said, Task, Workers

_MOST_CONFIG: Final = 200  # entries of a config, each of at most:
_MOST_VALUE: Final = 64 << 10  # bytes


class ExchangeInvalid(BadInput):
    """A ServerApp asked for something that cannot be done."""

    def __init__(self, why: str) -> None:
        super().__init__(
            f"the app's server asked for something that cannot be done: {why}",
            do="mend the app's server part, and have it approved again",
        )


class ServerSession:
    """A running ServerApp. Iterate over its exchanges and reply to each before asking for the next."""

    def __init__(self, talk: Conversation, most_bytes: int) -> None:
        self._talk, self._most_bytes = talk, most_bytes
        self._count = 0
        self._shapes: tuple[Shape, ...] | None = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._talk.close()

    async def __aiter__(self) -> AsyncIterator[Exchange]:
        """The app's exchanges, in order, until it returns. Raises WorkerFailed, BadInput."""
        while True:
            match await self._talk.listen():
                case Said(data):
                    yield self._checked(unpack(data, Exchange, self._most_bytes))
                case Finished():
                    return

    async def reply(self, model: Model, weight: float, sites: int) -> None:
        """Tell the app the mean of its exchange. weight: the sum of the sites' weights. sites: how many are in it."""
        await self._talk.say(pack(Mean(values=model.values, weight=weight, sites=sites)))

    def _checked(self, exchange: Exchange) -> Exchange:
        """What comes from the worker is the researcher's word."""
        self._count += 1
        values = rule.vector(exchange.model)
        if exchange.number != self._count:
            raise ExchangeInvalid("its exchanges are not numbered one after the other")
        self._shapes = self._shapes or exchange.model.shapes
        if [(s.name, s.dims) for s in exchange.model.shapes] != [(s.name, s.dims) for s in self._shapes]:
            raise ExchangeInvalid("the arrays have other names or shapes than before")
        if len(exchange.config) > _MOST_CONFIG or any(
            len(k) > 200 or len(pack(v)) > _MOST_VALUE for k, v in exchange.config.items()
        ):
            raise ExchangeInvalid("the config is too large")
        # some strategies compute in double precision from the second round on: the model keeps the widths of its first
        return msgspec.structs.replace(exchange, model=rule.rounded(self._shapes, values))


async def open_session(
    workers: Workers,
    fab: bytes,
    *,
    run: int,
    sites: int,
    run_config: Mapping[str, Scalar],
    limits: Limits | None = None,
) -> ServerSession:
    """Start the ServerApp of a bundle in a worker. run: any number, which the app sees. Limits: the wall clock counts
    while it thinks, not while sites train.
    """
    request = ServeRequest(run_config=dict(run_config), run=run, sites=sites)
    talk = await workers.converse(Task(entry=SERVE, payload=pack(request), tables=(fab,), limits=limits))
    return ServerSession(talk, (limits or Limits()).reply)
