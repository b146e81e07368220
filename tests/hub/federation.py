"""A federation in one process: the hub's and the sites' own programs, called over ASGI, on real time and real keys.

Tests get a `Town` (fixture `town`). `town.play(scene)` starts hub and sites in a fresh loop, runs `scene(town)`, and stops them.
What is not real: no TLS and no sockets between the programs, and workers without walls.
"""

import asyncio
import contextlib
import io
import json
import shutil
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from types import MappingProxyType
from urllib.parse import unquote, urlsplit

import msgspec
import numpy as np
import pyarrow as pa

from paroma.data.cohort.assemble import assemble
from paroma.data.connect import load as loading
from paroma.data.consent import state as consent
from paroma.data.consent.statement import Verdict
from paroma.data.vault.vault import open_vault
from paroma.hub import tls
from paroma.hub.app import make_app as hub_app
from paroma.hub.parts import Ports as HubPorts, open_hub
from paroma.hub.settings import HubSettings
from paroma.kernel.blocking import Threads
from paroma.kernel.clock import SystemClock
from paroma.kernel.disk import SystemDisk
from paroma.kernel.ids import DataSetId
from paroma.kernel.randomness import OsRandomness
from paroma.kernel.store import migrations
from paroma.kernel.store.database import open_store
from paroma.kernel.wire.network import HttpRequest, HttpResponse, PeerUnavailable
from paroma.lab import heart
from paroma.lab.workers import InProcess
from paroma.learn.runs.work import COMPUTE
from paroma.learn.secagg.agreement import MlKem768
from paroma.site.app import make_app as site_app
from paroma.site.commands import join_over
from paroma.site.parts import VERSIONS, Ports as SitePorts, offer, open_site
from paroma.site.settings import SiteSettings
from paroma.trust.channel.caller import Caller
from paroma.trust.federation import invitations, members, pinning
from paroma.trust.identity import people
from paroma.trust.keys.signing import HeldKey
from paroma.trust.permit import permit as permits
from paroma.trust.permit.permit import Permit
from paroma.trust.permit.wish import Wish

HUB_URL = "https://hub.test:443"
PLACES = ("cleveland", "hungarian", "switzerland", "va")
FEATURES = ("age", "sex", "chol", "num")
PATIENTS = 14  # a site
JSON = "application/json"


def origin(url: str) -> str:
    """Scheme, host and port, the port always there."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.hostname}:{parts.port or (443 if parts.scheme == 'https' else 80)}"


class ShiftedClock(SystemClock):
    """The machine's clock, set forward by `ahead` seconds."""

    def __init__(self) -> None:
        self.ahead = 0.0

    def now(self) -> float:
        return super().now() + self.ahead


class Wires:
    """Calls the programs. `cut`: origins that cannot be reached. `seen`: what was sent, for replays."""

    def __init__(self) -> None:
        self.apps: dict[str, object] = {}
        self.cut: set[str] = set()
        self.seen: list[HttpRequest] = []

    async def send(self, request: HttpRequest) -> HttpResponse:
        self.seen.append(request)
        where = origin(request.url)
        app = self.apps.get(where)
        if app is None or where in self.cut:
            raise PeerUnavailable(f"`{where}` cannot be reached", do="repeat")
        try:
            async with asyncio.timeout(request.timeout):
                return await answer(app, request)
        except TimeoutError as problem:
            raise PeerUnavailable("too late", do="repeat") from problem


async def answer(app, request: HttpRequest) -> HttpResponse:
    """What an ASGI program answers; an exception of its own goes through, so that a test fails on it."""
    parts = urlsplit(request.url)
    pieces: list[dict] = [{"type": "http.request", "body": request.body, "more_body": False}]
    headers = [(b"host", parts.netloc.encode()), (b"content-length", str(len(request.body)).encode())]
    given = [(name.lower().encode(), value.encode("latin-1")) for name, value in request.headers]
    if any(name == b"content-length" for name, _ in given):
        headers.pop()
    scope = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": request.method,
        "scheme": parts.scheme,
        "path": unquote(parts.path),
        "raw_path": parts.path.encode(),
        "query_string": parts.query.encode(),
        "root_path": "",
        "headers": headers + given,
        "client": ("test", 1),
        "server": (parts.hostname, parts.port or 443),
    }
    status, got, body = 500, [], bytearray()

    async def receive():
        if not pieces:
            await asyncio.get_running_loop().create_future()  # a client that stays
        return pieces.pop()

    async def send(message):
        nonlocal status, got
        if message["type"] == "http.response.start":
            status, got = message["status"], message["headers"]
        else:
            body.extend(message.get("body", b""))

    await app(scope, receive, send)
    folded: dict[str, str] = {}
    for name, value in got:
        folded[name.decode().lower()] = value.decode("latin-1")
    return HttpResponse(status=status, headers=MappingProxyType(folded), body=bytes(body))


class Workers:
    """Workers without walls; `before` and `after` are called around each task, with the site's name."""

    def __init__(self, town: "Town", name: str) -> None:
        self._town, self._name, self._inner = town, name, InProcess(town.preload)

    async def run(self, task):
        await self._town.before(self._name)
        reply = await self._inner.run(task)
        await self._town.after(self._name)
        return reply

    async def converse(self, task):
        return await self._inner.converse(task)


async def nothing(_name: str) -> None:
    """What happens around a worker where a test has nothing to add."""


@dataclass
class Someone:
    """A person with a key at the hub or at a site."""

    caller: Caller
    key: HeldKey
    person: str
    role: str

    async def ask(self, method: str, path: str, body: object = None) -> tuple[int, object]:
        """Status, and what the JSON says."""
        sent = b"" if body is None else body if isinstance(body, bytes) else msgspec.json.encode(body)
        reply = await self.caller.call(method, path, sent, kind=JSON, wait=30.0)
        kind = reply.headers.get("content-type", "")
        return reply.status, json.loads(reply.body) if "json" in kind and reply.body else reply.body


@dataclass
class Browser:
    """A browser: cookies by origin, no token."""

    town: "Town"
    jar: dict[str, dict[str, str]] = field(default_factory=dict)

    async def ask(self, method: str, url: str, body: bytes = b"", **headers: str) -> HttpResponse:
        where = origin(url)
        cookies = self.jar.setdefault(where, {})
        given = [(name.replace("_", "-"), value) for name, value in headers.items()]
        if cookies:
            given.append(("cookie", "; ".join(f"{n}={v}" for n, v in cookies.items())))
        if method == "POST" and not any(name == "origin" for name, _ in given):
            given.append(("origin", where))
        reply = await self.town.wires.send(
            HttpRequest(method=method, url=url, headers=tuple(given), body=body, timeout=20.0)
        )
        if "set-cookie" in reply.headers:
            name, _, value = reply.headers["set-cookie"].split(";")[0].partition("=")
            cookies[name] = value
        return reply


@dataclass
class Town:
    """Hub, sites and their people."""

    folder: Path
    urls: Callable[[str], str | None] = lambda _name: None  # addresses of databases; None: SQLite in the folder
    clock: ShiftedClock = field(default_factory=ShiftedClock)
    wires: Wires = field(default_factory=Wires)
    before: Callable[[str], Awaitable[None]] = nothing
    after: Callable[[str], Awaitable[None]] = nothing
    hub_workers: object = None  # for apps' server parts
    preload: tuple[str, ...] = (COMPUTE,)  # of the sites' workers
    hub: object = None
    sites: dict = field(default_factory=dict)
    people: dict[str, tuple[HeldKey, str, str]] = field(default_factory=dict)  # who -> key, person, origin
    patience: float = 3.0
    offline: float = 5.0  # s of silence
    authority: bytes = b""
    threads: Threads | None = None
    members: tuple[str, ...] = ()

    # -- programs

    def open_hub(self):
        settings = HubSettings(
            folder=self.folder / "hub",
            name="Test federation",
            url=HUB_URL,
            store=self.urls("hub"),
            patience_seconds=self.patience,
            offline_seconds=self.offline,
        )
        ports = HubPorts(
            clock=self.clock,
            randomness=OsRandomness(),
            disk=SystemDisk(),
            blocking=self.threads,
            workers=self.hub_workers or InProcess(()),
        )
        settings.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        self.hub = open_hub(settings, ports, authority=self.authority)
        return self.hub

    def site_settings(self, name: str) -> SiteSettings:
        return SiteSettings(
            folder=self.folder / name,
            title=name,
            url=f"https://{name}.test:443",
            store=self.urls(name),
            recheck_seconds=0.5,
        )

    def open_site(self, name: str):
        ports = SitePorts(
            clock=self.clock,
            randomness=OsRandomness(),
            disk=SystemDisk(),
            blocking=self.threads,
            network=self.wires,
            workers=Workers(self, name),
            kem=MlKem768(),
            walls=tuple,
        )
        self.sites[name] = open_site(self.site_settings(name), ports)
        return self.sites[name]

    async def start_hub(self) -> None:
        hub = self.open_hub()
        self.wires.apps[HUB_URL] = hub_app(hub)
        await hub.start()

    async def stop_hub(self) -> None:
        self.wires.apps.pop(HUB_URL, None)
        await self.hub.stop()
        await asyncio.sleep(0.05)
        self.hub.store.close()

    async def start_site(self, name: str) -> None:
        site = self.open_site(name)
        self.wires.apps[site.settings.origin] = site_app(site)
        await site.start()

    async def stop_site(self, name: str) -> None:
        site = self.sites.pop(name)
        self.wires.apps.pop(site.settings.origin, None)
        await site.stop()
        site.vault.close()
        site.store.close()

    def play(self, scene: Callable[["Town"], Awaitable[None]], *, sites: tuple[str, ...] | None = None) -> None:
        """Start everything, run the scene, stop everything."""

        async def all_of_it() -> None:
            self.threads = Threads(4, "town")
            try:
                await self.start_hub()
                for name in self.members if sites is None else sites:
                    await self.start_site(name)
                await scene(self)
            finally:
                for name in list(self.sites):
                    await self.stop_site(name)
                with contextlib.suppress(KeyError):
                    if HUB_URL in self.wires.apps:
                        await self.stop_hub()
                self.threads.close()

        asyncio.run(all_of_it())

    # -- beginning

    async def invitation(self, owner: str | None = None) -> str:
        hub = self.hub
        return str(
            await hub.store.write(
                lambda tx: invitations.mint(
                    tx,
                    url=HUB_URL,
                    fingerprint=pinning.fingerprint(hub.authority),
                    log_vkey=hub.signer.vkey,
                    now=self.clock.now(),
                    randomness=OsRandomness(),
                    owner=owner,
                )
            )
        )

    async def join(self, line: str, name: str, *, owner: str | None = None):
        return await join_over(
            line,
            self.folder / name,
            owner=owner or f"Owner of {name}",
            title=name,
            port=8480,
            networks=lambda _url, _authority: self.wires,
            clock=self.clock,
            randomness=OsRandomness(),
            disk=SystemDisk(),
        )

    def load(self, name: str) -> None:
        settings, disk = self.site_settings(name), SystemDisk()
        store = open_store(settings.database, self.threads, disk)
        migrations.upgrade(store, VERSIONS)
        vault = open_vault(settings.folder / "vault", settings.roots, disk, OsRandomness())
        batch = loading.parse([(name, io.BytesIO(records(name)))])
        store.write_now(lambda tx: loading.keep_consents(tx, batch, self.clock.now()))
        loading.keep_records(batch, vault)
        store.write_now(lambda tx: offer(tx, heart.data_set(), self.clock.now()))
        vault.close()
        store.close()

    async def enrol(self, where: str, name: str, role: str) -> Someone:
        """Enrol a person at the hub (`where` is "hub") or at a site."""
        program = self.hub if where == "hub" else self.sites[where]
        url = HUB_URL if where == "hub" else program.settings.origin
        code = await program.store.write(
            lambda tx: people.invite(
                tx,
                name=name,
                role=role,
                site=None if where == "hub" else program.membership.site,
                now=self.clock.now(),
                randomness=OsRandomness(),
            )
        )
        key = HeldKey.fresh(OsRandomness())
        first = Caller(self.wires, key, "nobody", url, clock=self.clock, randomness=OsRandomness())
        body = msgspec.json.encode({"code": code, "jwk": key.public_jwk})
        reply = await first.prove("POST", "/people/enrol", body, kind=JSON, wait=10.0)
        assert reply.status == 201, reply.body
        who = json.loads(reply.body)
        self.people[f"{role}@{where}"] = (key, who["person"], url)
        return self.someone(f"{role}@{where}")

    def someone(self, who: str) -> Someone:
        """A person who is enrolled already: `scientist@hub`, `officer@va`..."""
        key, person, url = self.people[who]
        caller = Caller(self.wires, key, person, url, clock=self.clock, randomness=OsRandomness())
        return Someone(caller, key, person, who.partition("@")[0])

    async def knows_itself(self, name: str) -> bool:
        """Whether a site has read in the federation log that it was admitted."""
        site = self.sites[name]
        known = await site.store.read(members.members)
        return any(one.site == site.membership.site for one in known)

    # -- acts

    def wish(self, **changes) -> Wish:
        return Wish(
            **{
                "title": "Hearts of four hospitals",
                "purpose": "scientific-research",
                "data_set": DataSetId(heart.data_set().id),
                "features": FEATURES,
                "algorithms": ("statistics", "logistic"),
                "benefit": "We learn what raises the risk.",
                "least_patients": 10,
                "counts_to": 1,
                "attempts": 4,
            }
            | changes
        )

    async def sign(self, name: str, permit: Permit) -> tuple[int, object]:
        officer, site = self.someone(f"officer@{name}"), self.sites[name]
        signature = permits.sign(permit, site.membership.site, officer.person, officer.key, self.clock.now())
        return await officer.ask("POST", f"/api/requests/{permit.id}/sign", signature)

    async def asked(self, name: str, permit: str) -> dict:
        """What the officer of a site sees of a permit, once it is there."""

        async def there():
            _, found = await self.someone(f"officer@{name}").ask("GET", "/api/requests")
            return next((one for one in found if one["permit"]["id"] == permit), None)

        return await until(there)

    async def permit(self, **changes) -> Permit:
        """Apply, have it signed by all, and wait until it holds everywhere."""
        scientist = self.someone("scientist@hub")
        status, standing = await scientist.ask("POST", "/api/applications", self.wish(**changes))
        assert status == 201, standing
        permit = msgspec.convert(standing["permit"], Permit)
        for name in self.members:
            await self.asked(name, permit.id)
            status, said = await self.sign(name, permit)
            assert status == 204, said
        for name in self.members:

            async def holds(name=name):
                return (await self.asked(name, permit.id))["state"] == "valid"

            await until(holds)
        return permit

    async def open_run(self, permit: Permit, query) -> dict:
        status, report = await self.someone("scientist@hub").ask(
            "POST", "/api/runs", {"permit": permit.id, "query": msgspec.to_builtins(query)}
        )
        assert status == 201, report
        return report

    async def ended(self, run: str, *, seconds: float = 120.0) -> dict:
        """The report of a run that has ended."""
        scientist = self.someone("scientist@hub")

        async def over():
            _, report = await scientist.ask("GET", f"/api/runs/{run}")
            return report if report["ended"] is not None else None

        return await until(over, seconds=seconds)

    async def run(self, permit: Permit, query, *, seconds: float = 120.0) -> dict:
        report = await self.open_run(permit, query)
        return await self.ended(report["run"], seconds=seconds)

    def site_log(self, name: str) -> list[dict]:
        return log_of(self.sites[name].store, "site")

    def hub_log(self) -> list[dict]:
        return log_of(self.hub.store, "federation")

    def patients(self, name: str) -> tuple[str, ...]:
        return tuple(sorted(self.sites[name].vault.patients()))

    def rows(self, name: str, *, without: tuple[str, ...] = ()) -> np.ndarray:
        """The rows of a site as its own data set gives them, all that may be used."""
        site = self.sites[name]
        use = site_use()
        usable = site.store.read_now(lambda tx: consent.verdicts(tx, use, self.clock.now()))

        def verdict(patient):
            return Verdict(allowed=False, rule="test") if patient in without else usable(patient)

        cohort = assemble(heart.data_set(), FEATURES, site.vault, verdict, OsRandomness())
        table = pa.ipc.open_stream(cohort.table).read_all()
        return np.column_stack([table.column(feature).to_numpy() for feature in FEATURES])

    async def patient_browser(self, name: str, patient: str) -> Browser:
        """A browser in which this patient's link was opened."""
        desk = self.someone(f"officer@{name}")
        status, said = await desk.ask("POST", f"/api/patients/{patient}/link")
        assert status == 201, said
        browser = Browser(self)
        reply = await browser.ask("GET", said["url"])
        assert reply.status == 303, reply.body
        return browser


def site_use():
    from paroma.data.consent.statement import Use

    return Use(purpose="scientific-research", study="study-none")


def log_of(store, name: str) -> list[dict]:
    from paroma.trust.audit import log as logs

    def read(tx):
        return [json.loads(one) for one in logs.entries(tx, name, 0, logs.checkpoint(tx, name).size)]

    return store.read_now(read)


async def until(holds, *, seconds: float = 60.0):
    """The first true answer of `holds`, asked again and again. The limit is for what never comes: a busy machine is slow."""
    loop = asyncio.get_running_loop()
    ends = loop.time() + seconds
    while True:
        found = await holds()
        if found:
            return found
        assert loop.time() < ends, "it never came true"
        await asyncio.sleep(0.03)


@lru_cache
def records(name: str) -> bytes:
    """The first complete patients of a hospital, as FHIR."""
    chosen = [row.patient for row in heart.rows() if row.hospital == name and row.complete][:PATIENTS]
    wanted = tuple(f"{kind}{patient}{end}" for patient in chosen for kind, end in (('"id":"', '"'), ("Patient/", '"')))
    lines = heart.ndjson(name).decode().splitlines(keepends=True)
    return "".join(line for line in lines if any(one in line for one in wanted)).encode()


def found(town: Town, places: tuple[str, ...] = PLACES) -> None:
    """Four sites join, load records and have officers; a scientist, an auditor and an operator are enrolled at the hub."""
    files = tls.own_files(town.folder / "authority", names=("hub.test",), clock=town.clock, disk=SystemDisk())
    town.authority = files.ca.read_bytes()

    async def begin(town: Town) -> None:
        for name in places:
            await town.join(await town.invitation(), name)
            town.load(name)
            await town.start_site(name)
            await until(lambda name=name: town.knows_itself(name))
            await town.enrol(name, f"Officer of {name}", "officer")
        town.members = places
        for who, role in (("Lena Vogt", "scientist"), ("Otto Berg", "operator"), ("Ada Klein", "auditor")):
            await town.enrol("hub", who, role)
        scientist = town.someone("scientist@hub")

        async def offered():
            _, sets = await scientist.ask("GET", "/api/data-sets")
            return sets and len(sets[0]["sites"]) == len(places)

        await until(offered)

    town.play(begin, sites=())


def copied(original: Town, folder: Path) -> Town:
    """The same federation at rest, in files of its own."""
    shutil.copytree(original.folder, folder, dirs_exist_ok=True)
    return Town(folder=folder, people=dict(original.people), authority=original.authority, members=original.members)
