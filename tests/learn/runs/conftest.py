"""A whole run in memory: the real hub machine, the real site machines, real cryptography; a network that a test can bend."""

import hashlib
import random
from dataclasses import dataclass, field

import msgspec
import numpy as np
import pytest

from paroma.kernel.errors import Refused
from paroma.kernel.ids import RunId, SiteId
from paroma.kernel.randomness import SeededRandomness
from paroma.learn.runs import hub, site
from paroma.learn.runs.crypto import Combining, Signing
from paroma.learn.runs.messages import Complete, FromHub, FromSite, OpenAttempt, Participant, RunInvitation, sha256
from paroma.learn.secagg import masks, unmask
from paroma.learn.secagg.layout import Field, Layout

TO_HUB = SiteId("hub")


class HashKey:
    """A signing key that is fast and follows its seed. Whoever verifies could sign too: enough for machines that are honest."""

    def __init__(self, name):
        self._secret = hashlib.sha256(f"key of {name}".encode()).digest()
        self.thumbprint = hashlib.sha256(self._secret).hexdigest()

    def sign(self, data):
        return hashlib.sha256(self._secret + data).digest() * 2

    def verify(self, data, signature):
        if signature != self.sign(data):
            raise Refused("a signature is false", do="sign again")


class SeededKem:
    """A key encapsulation whose encapsulation follows a seed too. No secret at all: whoever sees the public key has it."""

    def generate(self, randomness):
        private = randomness.take(32)
        return private, hashlib.sha256(private).digest()

    def encapsulate(self, public, randomness):
        if len(public) != 32:
            raise ValueError("not 32 bytes")
        ciphertext = randomness.take(32)
        return hashlib.sha256(public + ciphertext).digest(), ciphertext

    def decapsulate(self, private, ciphertext):
        return hashlib.sha256(hashlib.sha256(private).digest() + ciphertext).digest()


@dataclass
class Programme:
    """What goes wrong. lost: site -> stage at which it dies for good. withdraws: site -> stage. Stages are the machine's words:
    `set-up`, `open` (before the upload), `voting` (before its vote), `voted` (after its first vote); a site may also be lost at `complete` (when the complete set comes)."""

    lost: dict = field(default_factory=dict)
    withdraws: dict = field(default_factory=dict)
    sits_out: set = field(default_factory=set)
    duplicates: float = 0.0
    crashes: float = 0.0
    seed: int = 0


class Federation:
    def __init__(
        self, n=4, *, m=3, c=0, attempts=3, questions=5, owners=None, programme=None, kem=None, key=HashKey, pace=None
    ):
        self.p = programme or Programme()
        self.rng = random.Random(self.p.seed)
        self.names = [SiteId(f"site-{i:02}") for i in range(n)]
        self.keys = {name: key(name) for name in self.names}
        self.time = 1_000.0
        owners = owners or {name: f"owner of {name}" for name in self.names}
        self.participants = tuple(Participant(site=s, owner=owners[s], key=self.keys[s].thumbprint) for s in self.names)
        clock = lambda: self.time  # noqa: E731
        self.hub_crypto = Combining(keys=self.keys, clock=clock, cosigned=lambda: f"checkpoint at {self.time}")
        self.crypto = {
            s: Signing(
                keys=self.keys,
                clock=clock,
                signer=self.keys[s].sign,
                kem=kem or SeededKem(),
                randomness=SeededRandomness(self.p.seed, s),
            )
            for s in self.names
        }
        self.layout = Layout(
            fields=(
                Field(name="counts", length=7, ring=32, scale_bits=0, bound=1.0),
                Field(name="reals", length=5, ring=64, scale_bits=20, bound=8.0),
            ),
            sites=n,
            most=1000,
        )
        self.terms = site.Terms(
            permit="ab" * 32, m=m, c=c, attempts=attempts, questions=questions, participants=self.participants
        )
        self.plan = hub.Plan(
            permit="ab" * 32,
            m=m,
            c=c,
            attempts=attempts,
            questions=questions,
            participants=self.participants,
            pace=pace or hub.Pace(),
        )
        self.disk = {}  # site -> its state's bytes
        self.hub_disk = b""
        self.queues = {name: [] for name in (TO_HUB, *self.names)}  # (sender, bytes)
        self.spool = {}  # sha256 -> masked bytes
        self.sent_uploads = {}  # (site, E) -> set of masked hashes that left it
        self.values = {}  # (site, E) -> plain bytes that were masked
        self.contaminated = set()  # sites whose current contribution holds a withdrawn patient
        self.receipts = {name: [] for name in self.names}
        self.rejected, self.suspected, self.results, self.failed = [], [], [], None
        self.able = False
        self.dead = set()

    # --- the hub's driver

    def start(self):
        state, effects = hub.begin(RunId("run-1"), self.plan, b"permit", b"query", self.hub_crypto)
        self._keep_hub(state, effects)

    def at_hub(self, event):
        state, effects = hub.step(hub.unpack(self.hub_disk), event, self.hub_crypto)
        self._keep_hub(state, effects)

    def hub_state(self):
        return hub.unpack(self.hub_disk)

    def _keep_hub(self, state, effects):
        self.hub_disk = hub.pack(state)
        for effect in effects:
            match effect:
                case hub.Send():
                    self.queues[effect.to].append((TO_HUB, msgspec.msgpack.encode(effect.message)))
                case hub.Able():
                    self.able = True
                case hub.Log():
                    assert sha256(effect.data) == effect.entry
                    self.at_hub(hub.Logged(entry=effect.entry, checkpoint="logged"))
                case hub.AddUp():
                    total = unmask.total(
                        self.layout,
                        (self.spool[h] for h in effect.masked),
                        {s.site: s.seed for s in effect.self_seeds},
                        {(k, j): seed for k, j, seed in effect.pair_seeds},
                    )
                    self.at_hub(hub.Summed(entry=effect.entry, total=total))
                case hub.Answered():
                    self.results.append(effect)
                case hub.Failed():
                    self.failed = effect.why
                case hub.Suspected():
                    self.suspected.append(effect)

    # --- a site's driver

    def state(self, name):
        return site.unpack(self.disk[name])

    def at_site(self, name, event):
        if name in self.dead:
            return
        before = self.state(name)
        after, effects = site.step(before, event, self.crypto[name], lambda: name not in self.contaminated)
        self.disk[name] = site.pack(after)  # durable, and only then:
        if after is not before and self.rng.random() < self.p.crashes:
            # it dies between writing and sending, and comes back
            self.at_site(name, site.Restarted(anchored=after.revision))
            self._receipts(name, effects)
            return
        self._do(name, effects)

    def _receipts(self, name, effects):
        self.receipts[name] += [e for e in effects if isinstance(e, site.Counted | site.NotCounted | site.Learned)]

    def _do(self, name, effects):
        self._receipts(name, effects)
        for effect in effects:
            match effect:
                case site.Send():
                    if getattr(effect.message, "core", None) is not None:
                        self.sent_uploads.setdefault((name, effect.message.core.entry), set()).add(
                            effect.message.core.masked
                        )
                    self.queues[TO_HUB].append((name, msgspec.msgpack.encode(effect.message)))
                case site.Compute():
                    self.compute(name, effect.entry)
                case site.Rejected():
                    self.rejected.append((name, effect.why))

    def compute(self, name, entry):
        if name in self.p.sits_out:
            self.at_site(name, site.CannotContribute(entry=entry))
            return
        self.contaminated.discard(name)
        draw = np.random.default_rng(self.rng.getrandbits(32))  # other numbers each time: a second vector would show
        plain = self.layout.encode({"counts": draw.integers(-900, 900, 7), "reals": draw.uniform(-7000, 7000, 5)})
        self.values.setdefault((name, entry), []).append(bytes(plain))
        masked = masks.masker(self.layout, self.masks_of(name))(bytes(plain))
        self.spool[sha256(masked)] = masked
        if self.p.withdraws.get(name) == "open":  # between the read and the upload
            del self.p.withdraws[name]
            self.withdraw(name)
        inline = masked if self.rng.random() < 0.5 else None
        self.at_site(
            name, site.Computed(entry=entry, masked=sha256(masked), size=len(masked), inline=inline, budget="00")
        )

    def masks_of(self, name):
        return site.masks_of(self.state(name), self.crypto[name])

    def withdraw(self, name):
        self.contaminated.add(name)
        self.at_site(name, site.Withdrawn())

    # --- the network

    def stage(self, name):
        state = self.state(name)
        if state.attempt is None:
            return "set-up"
        if state.attempt.upload is None:
            return "open"
        return "voted" if state.attempt.votes else "voting"

    def deliver(self, to):
        queue = self.queues[to]
        sender, data = queue.pop(0)
        if self.rng.random() < self.p.duplicates:
            queue.insert(self.rng.randrange(len(queue) + 1), (sender, data))
        if to == TO_HUB:
            self.at_hub(hub.Received(sender=sender, message=msgspec.msgpack.decode(data, type=FromSite)))
            return
        message = msgspec.msgpack.decode(data, type=FromHub)
        if isinstance(message, RunInvitation):
            if to not in self.disk and self.p.lost.get(to) != "never came":
                state, effects = site.begin(to, self.terms, message, self.crypto[to])
                self.disk[to] = site.pack(state)
                self._do(to, effects)
            return
        if to not in self.disk:
            return
        if (type(message), self.p.lost.get(to)) in {(OpenAttempt, "open"), (Complete, "complete")}:
            self.dead.add(to)
        self.at_site(to, message)
        stage = self.stage(to)
        if self.p.lost.get(to) == stage:
            self.dead.add(to)
        if self.p.withdraws.get(to) == stage:
            del self.p.withdraws[to]
            self.withdraw(to)

    def run(self, steps=5_000):
        """Deliver what there is, in any order of receivers; when nothing moves, let time pass to the hub's deadline."""
        for _ in range(steps):
            full = [name for name, queue in self.queues.items() if queue]
            if full:
                self.deliver(self.rng.choice(full))
                continue
            state = self.hub_state()
            if state.deadline is None:
                return
            self.time = max(self.time, state.deadline)
            self.at_hub(hub.Tick())
        raise AssertionError("the run does not come to rest")

    def set_up(self):
        self.start()
        self.run()

    def ask(self):
        self.contaminated.clear()
        self.at_hub(hub.Ask(request=b"model %d" % len(self.results), size=self.layout.size))
        self.run()

    def expected(self, answered):
        """The integer sum over U of what the members put in: a second way to the same bytes."""
        total = bytearray(self.layout.size)
        for member in answered.members:
            (name, entry) = (member.site, answered.entry)
            upload = next(iter(self.sent_uploads[name, entry]))
            plains = self.values[name, entry]
            plain = plains[-1] if len(plains) == 1 else next(p for p in plains if self._is(name, entry, p, upload))
            for (_f, into), (_g, part) in zip(self.layout.parts(total), self.layout.parts(plain), strict=True):
                np.add(into, part, out=into)
        return bytes(total)

    def _is(self, name, entry, plain, upload):
        return sha256(masks.masker(self.layout, self.masks_of(name))(plain)) == upload


@pytest.fixture
def federation():
    return Federation


@pytest.fixture
def programme():
    return Programme


@pytest.fixture(scope="session")
def federation_class():
    """Both classes at once, for tests that hypothesis runs many times."""
    return Federation, Programme
