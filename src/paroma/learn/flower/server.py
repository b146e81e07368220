"""A ServerApp at work inside the hub's worker: it is researcher's code too. It sees means, never one site's numbers.

Its `Grid` turns a round of equal messages to all sites into one exchange with the hub's driver, and the mean into as
many equal replies: every strategy that takes weighted means (FedAvg, FedProx, ...) then works as ever. What cannot be
done on sums is refused: messages to some sites only, different messages to different sites, and anything but training
(an evaluation's metrics are free numbers).
"""

from collections.abc import Iterable
from typing import Final, cast

import msgspec
from flwr.app import ConfigRecord, Context, Error, Message, MessageType, MetricRecord, RecordDict
from flwr.serverapp import Grid, ServerApp
from flwr.supercore.run import Run

from paroma.learn.flower.app import component, identify, model_of, numbered, record_of, unpacked
from paroma.learn.flower.fab import read
from paroma.learn.flower.messages import Exchange, Mean, Model, ServeRequest, Value
from paroma.learn.sandbox.task import Channel, ContractBroken

_SERVER: Final = 1 << 62  # a node number that no site has
_REFUSED: Final = 1  # any code but 0; the reason tells the author


class HubGrid(Grid):
    """The seven methods that an app may call, over the channel to the driver."""

    def __init__(self, channel: Channel, sites: int, run: int) -> None:
        self._channel, self._sites, self._run = channel, sites, Run.create_empty(run)
        self._exchanges = 0
        self._pushed: dict[str, Message] = {}

    def set_run(self, run: Run) -> None:
        """The run is the driver's: a wish to change it is not heard."""

    @property
    def run(self) -> Run:
        """The run."""
        return self._run

    def create_message(
        self, content: RecordDict, message_type: str, dst_node_id: int, group_id: str, ttl: float | None = None
    ) -> Message:
        """A message to a node."""
        return Message(content, dst_node_id, message_type, ttl=ttl, group_id=group_id)

    def get_node_ids(self) -> Iterable[int]:
        """The sites, by number."""
        return list(range(1, self._sites + 1))

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        """Send now, keep the replies for `pull_messages`."""
        sent = list(messages)
        replies = {m.metadata.src_node_id: m for m in self.send_and_receive(sent)}
        for message in sent:
            if reply := replies.get(message.metadata.dst_node_id):
                self._pushed[message.metadata.message_id] = reply
        return [m.metadata.message_id for m in sent]

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        """The replies that are there."""
        return [self._pushed.pop(number) for number in list(message_ids) if number in self._pushed]

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> Iterable[Message]:  # noqa: ARG002 - Flower's signature; the driver's own limits hold
        """One exchange: the same model to every site, and as many equal replies as sites are in the mean."""
        sent = list(messages)
        if not sent:
            return []
        self._exchanges += 1
        for message in sent:
            numbered(message, f"{self._exchanges}-{message.metadata.dst_node_id}")
        if any(m.metadata.message_type != MessageType.TRAIN for m in sent):
            self._exchanges -= 1
            return [Message(Error(_REFUSED, "only training is exchanged under masks"), reply_to=m) for m in sent]
        if sorted(m.metadata.dst_node_id for m in sent) != self.get_node_ids():
            raise ContractBroken("under masks every site takes part in every round: use fraction_train=1.0")
        mean, model = self._exchange(sent)
        arrays = record_of(Model(shapes=model.shapes, values=mean.values))
        key = next(iter(sent[0].content.array_records))
        share = mean.weight / mean.sites
        return [
            Message(RecordDict({key: arrays, "metrics": MetricRecord({"num-examples": share})}), reply_to=m)
            for m in sent[: mean.sites]
        ]

    def _exchange(self, sent: list[Message]) -> tuple[Mean, Model]:
        content = sent[0].content
        if any(m.content is not content and m.content != content for m in sent[1:]):
            raise ContractBroken("under masks every site gets the same message")
        if len(content.array_records) != 1 or len(content.config_records) > 1 or content.metric_records:
            raise ContractBroken("a training message holds one array record and at most one config record")
        (key, record), *_ = content.array_records.items()
        config_key, config = next(iter(content.config_records.items()), ("config", ConfigRecord()))
        if any(isinstance(value, bytes) for value in config.values()):
            raise ContractBroken("a config holds numbers, texts and lists of them, no bytes")
        model = model_of(record)
        ask = Exchange(
            number=self._exchanges,
            model=model,
            arrays_key=key,
            config_key=config_key,
            config=cast("dict[str, Value]", dict(config)),
        )
        self._channel.say(msgspec.msgpack.encode(ask))
        return msgspec.msgpack.decode(self._channel.listen(), type=Mean), model


def serve(payload: bytes, tables: list[memoryview], channel: Channel) -> bytes:
    """Run the ServerApp of the bundle in the only table (`ServeRequest` says how). Exchanges go over the channel;
    what it returns is empty: the model is the driver's.
    """
    request = msgspec.msgpack.decode(payload, type=ServeRequest)
    fab = read(bytes(tables[0]))
    with unpacked(fab):
        app = component(fab.serverapp, ServerApp)
        identify(request.run, _SERVER)
        context = Context(request.run, _SERVER, {}, RecordDict(), {**fab.config, **request.run_config})
        app(HubGrid(channel, request.sites, request.run), context)
    return b""
