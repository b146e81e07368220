"""How every simulated federation begins: four hospitals join, load records, and sign a permit, through their own routes.

This part is the same for all seeds and without faults, so it is done once a process; each seed goes on from a copy.
"""

import asyncio
import io
import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from importlib.resources import as_file, files
from pathlib import Path
from typing import Any, Final

import msgspec
import numpy as np
import pyarrow as pa

from paroma.data.cohort.assemble import assemble
from paroma.data.connect import load as loading
from paroma.data.consent.statement import Verdict
from paroma.data.vault.vault import open_vault
from paroma.hub import proposals, tls
from paroma.kernel.blocking import Inline
from paroma.kernel.disk import SystemDisk
from paroma.kernel.errors import Unavailable
from paroma.kernel.ids import DataSetId, PatientId, PermitId, StudyId
from paroma.kernel.randomness import SeededRandomness
from paroma.kernel.store import migrations
from paroma.kernel.store.database import open_store
from paroma.kernel.wire.network import HttpResponse, Network
from paroma.lab import heart
from paroma.lab.simulation.clock import VirtualClock
from paroma.lab.simulation.compiled import Compiled
from paroma.lab.simulation.federation import HOSPITALS, HUB, HUB_URL, Federation, site_settings
from paroma.lab.simulation.loop import Loop, run
from paroma.lab.simulation.network import Internet
from paroma.learn.dp import accountants
from paroma.learn.flower import fab
from paroma.site import permits as desk
from paroma.site.commands import join_over
from paroma.site.parts import VERSIONS, offer
from paroma.trust.channel.caller import Caller
from paroma.trust.federation import invitations, members, pinning
from paroma.trust.identity import people
from paroma.trust.keys.signing import HeldKey
from paroma.trust.permit import permit as permits
from paroma.trust.permit.permit import Permit, Privacy
from paroma.trust.permit.wish import Wish

SEED: Final = 0
PATIENTS: Final = 14  # a hospital
LEAST: Final = 10
FEATURES: Final = ("age", "chol", "num")
JSON: Final = "application/json"
BYTES: Final = "application/octet-stream"
PRIVATE_QUESTIONS: Final = 3  # that the privacy budget covers; an attempt is one
PRIVACY: Final = Privacy(
    epsilon=3.0,
    delta=1e-5,
    noise_multiplier=accountants.noise_multiplier(3.0, 1e-5, PRIVATE_QUESTIONS),
    clipping_norm=2.0,
    questions=PRIVATE_QUESTIONS,
)
WISH: Final = Wish(
    title="A simulated study",
    purpose="scientific-research",
    data_set=DataSetId(heart.data_set().id),
    features=FEATURES,
    algorithms=("statistics", "logistic"),
    benefit="Nobody's: these runs look for defects.",
    least_patients=LEAST,
    attempts=4,
)
SPARE: Final = 2.0  # s between the founding and what follows


@dataclass(frozen=True, slots=True, kw_only=True)
class Founded:
    """A federation at rest in `folder`, with a valid permit. elapsed: virtual seconds that it took to get there."""

    folder: Path
    elapsed: float
    authority: bytes
    scientist: str
    permit: PermitId  # exact sums: statistics, regressions, an app
    study: StudyId  # of the private permit
    private: PermitId  # differential privacy, for so many questions as `PRIVATE_QUESTIONS`
    code: str  # digest of the app's bundle
    rows: dict[PatientId, tuple[float, ...]]  # in the order of `FEATURES`
    patients: dict[str, tuple[PatientId, ...]]  # of each hospital
    sites: dict[str, str]  # hospital -> site id
    compiled: Compiled  # by the founding, for all that follow

    def copy_to(self, folder: Path) -> None:
        """A copy for one seed to spoil."""
        shutil.copytree(self.folder, folder, dirs_exist_ok=True)


def key_of(who: str) -> HeldKey:
    """The key of a person of the simulation."""
    return HeldKey.fresh(SeededRandomness(SEED, f"key/{who}"))


def caller(
    network: Network, who: str, subject: str, url: str, clock: VirtualClock, randomness: SeededRandomness
) -> Caller:
    """Speaks for a person."""
    return Caller(network, key_of(who), subject, url, clock=clock, randomness=randomness)


def found(folder: Path) -> Founded:
    """Found the federation in `folder`, which is empty or absent."""
    return run(SEED, lambda loop: _found(loop, folder))


async def _found(loop: Loop, folder: Path) -> Founded:
    internet, clock = Internet(loop), VirtualClock(loop)
    own = tls.own_files(folder / "authority", names=("hub.example",), clock=clock, disk=SystemDisk())
    authority = own.ca.read_bytes()
    federation = Federation(loop=loop, folder=folder, authority=authority, internet=internet)
    (folder / HUB).mkdir()
    federation.begin(HUB)
    await federation.all_up()
    patients: dict[str, tuple[PatientId, ...]] = {}
    rows: dict[PatientId, tuple[float, ...]] = {}
    for name in HOSPITALS:
        await _join(federation, internet.network(name), name, clock)
        found_rows = _load(folder, name, clock.now())
        patients[name] = tuple(sorted(found_rows))
        rows |= found_rows
    federation.begin(*HOSPITALS)
    await federation.all_up()
    scientist, subject = await _enrol(federation, HUB, "scientist", clock)
    officers = {name: await _enrol(federation, name, "officer", clock) for name in HOSPITALS}
    await _until(lambda: _offering(federation) == len(HOSPITALS))
    with as_file(files("paroma.lab.demo") / "flower_app") as bundled:
        brought = await scientist.call("POST", "/api/bundles", fab.build(bundled), kind=BYTES, wait=30.0)
    code = str(_read(brought)["code"])
    exact = msgspec.structs.replace(WISH, algorithms=("statistics", "logistic", "flower"), code=code)
    permit = await _agree(federation, scientist, officers, exact, clock)
    private = await _agree(federation, scientist, officers, msgspec.structs.replace(WISH, privacy=PRIVACY), clock)
    await asyncio.sleep(SPARE)
    sites = {name: str(federation.site(name).membership.site) for name in HOSPITALS}
    await federation.finish()
    return Founded(
        folder=folder,
        elapsed=loop.time() + SPARE,
        authority=authority,
        scientist=subject,
        permit=permit.id,
        study=private.study,
        private=private.id,
        code=code,
        rows=rows,
        patients=patients,
        sites=sites,
        compiled=federation.compiled,
    )


async def _join(federation: Federation, network: Network, name: str, clock: VirtualClock) -> None:
    hub = federation.hub()
    line = await hub.store.write(
        lambda tx: invitations.mint(
            tx,
            url=HUB_URL,
            fingerprint=pinning.fingerprint(hub.authority),
            log_vkey=hub.signer.vkey,
            now=clock.now(),
            randomness=SeededRandomness(SEED, f"invitation/{name}"),
        )
    )
    await join_over(
        str(line),
        federation.folder / name,
        owner=f"Owner of {name}",
        title=name,
        port=8480,
        networks=lambda _url, _authority: network,
        clock=clock,
        randomness=SeededRandomness(SEED, f"join/{name}"),
        disk=SystemDisk(),
    )


def _load(folder: Path, name: str, now: float) -> dict[PatientId, tuple[float, ...]]:
    settings, disk = site_settings(folder, name), SystemDisk()
    randomness = SeededRandomness(SEED, f"load/{name}")
    store = open_store(settings.database, Inline(), disk)
    migrations.upgrade(store, VERSIONS)
    vault = open_vault(settings.folder / "vault", settings.roots, disk, randomness)
    batch = loading.parse([(name, io.BytesIO(_records(name)))])
    store.write_now(lambda tx: loading.keep_consents(tx, batch, now))
    loading.keep_records(batch, vault)
    store.write_now(lambda tx: offer(tx, heart.data_set(), now))
    everybody = assemble(
        heart.data_set(), FEATURES, vault, lambda _patient: Verdict(allowed=True, rule="founding"), randomness
    )
    table = pa.ipc.open_stream(everybody.table).read_all()
    columns = np.column_stack([table.column(feature).to_numpy() for feature in FEATURES])
    vault.close()
    store.close()
    return {patient: tuple(map(float, row)) for patient, row in zip(everybody.patients, columns, strict=True)}


@lru_cache
def _all_records(name: str) -> bytes:
    return heart.ndjson(name)


def _records(name: str) -> bytes:
    """The first complete patients of a hospital, as FHIR."""
    chosen = [row.patient for row in heart.rows() if row.hospital == name and row.complete][:PATIENTS]
    wanted = tuple(f"{kind}{patient}{end}" for patient in chosen for kind, end in (('"id":"', '"'), ("Patient/", '"')))
    lines = _all_records(name).decode().splitlines(keepends=True)
    return "".join(line for line in lines if any(one in line for one in wanted)).encode()


async def _enrol(federation: Federation, where: str, role: Any, clock: VirtualClock) -> tuple[Caller, str]:
    program = federation.hub() if where == HUB else federation.site(where)
    url = HUB_URL if where == HUB else federation.site(where).settings.origin
    site = None if where == HUB else federation.site(where).membership.site
    who = f"{role}/{where}"
    code = await program.store.write(
        lambda tx: people.invite(
            tx,
            name=who,
            role=role,
            site=site,
            now=clock.now(),
            randomness=SeededRandomness(SEED, f"enrol/{who}"),
        )
    )
    network, randomness = federation.internet.network(who), SeededRandomness(SEED, f"enrolling/{who}")
    first = caller(network, who, "nobody", url, clock, randomness)
    body = json.dumps({"code": code, "jwk": key_of(who).public_jwk}).encode()
    subject = str(_read(await first.prove("POST", "/people/enrol", body, kind=JSON, wait=30.0))["person"])
    return caller(network, who, subject, url, clock, randomness), subject


async def _agree(
    federation: Federation, scientist: Caller, officers: dict[str, tuple[Caller, str]], wish: Wish, clock: VirtualClock
) -> Permit:
    """Apply, let every officer sign, and wait until every site has checked the permit."""
    standing = _read(await scientist.call("POST", "/api/applications", msgspec.json.encode(wish), kind=JSON, wait=30.0))
    permit = msgspec.convert(standing["permit"], Permit)
    for name, (officer, person) in officers.items():
        await _sign(federation, name, officer, person, permit, clock)
    await _until(lambda: _state(federation, permit.id) == "valid")
    await _until(lambda: all(_holds(federation, name, permit.id) for name in HOSPITALS))
    return permit


async def _sign(
    federation: Federation, name: str, officer: Caller, person: Any, permit: Permit, clock: VirtualClock
) -> None:
    await _until(lambda: any(row["permit"] == permit.id for row in federation.site(name).store.read_now(desk.rows)))
    site = federation.site(name).membership.site
    await _until(lambda: bool(federation.site(name).store.read_now(lambda tx: members.officers(tx, site))))
    signature = permits.sign(permit, site, person, key_of(f"officer/{name}"), clock.now())
    path = f"/api/requests/{permit.id}/sign"
    _read(await officer.call("POST", path, msgspec.json.encode(signature), kind=JSON, wait=30.0))


def _offering(federation: Federation) -> int:
    return sum(len(sites) for _, sites in federation.hub().store.read_now(proposals.data_sets))


def _state(federation: Federation, permit: PermitId) -> str:
    return federation.hub().store.read_now(lambda tx: proposals.standing(tx, permit)).state


def _holds(federation: Federation, name: str, permit: PermitId) -> bool:
    return any(
        row["permit"] == permit and row["state"] == "valid" for row in federation.site(name).store.read_now(desk.rows)
    )


async def _until(holds: Callable[[], bool]) -> None:
    for _ in range(600):
        if holds():
            return
        await asyncio.sleep(0.2)
    raise Unavailable("the simulated federation was not founded within two minutes", do="look for what it waits for")


def _read(reply: HttpResponse) -> Any:
    if reply.status >= 300:  # HTTP
        raise Unavailable(f"the founding was answered {reply.status}: {reply.body[:300]!r}", do="mend the route")
    return json.loads(reply.body) if reply.body else None
