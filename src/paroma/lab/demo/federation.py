"""One hub and four hospitals as five real processes on this machine, made and run through the `paroma` command.

Everything lies in one fresh folder; ports are whatever is free. Nothing here knows a scene.
"""

import os
import shutil
import tempfile
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from importlib.resources import as_file, files
from pathlib import Path
from types import MappingProxyType
from typing import Final, TypeVar

import msgspec

from paroma.kernel.clock import SystemClock
from paroma.kernel.randomness import OsRandomness
from paroma.lab import heart
from paroma.lab.processes import Program, Programs, call, command, free_port, listening
from paroma.sdk import profile as profiles
from paroma.sdk.login import Ways
from paroma.sdk.talk import Talk
from paroma.trust.keys import files as key_files

T = TypeVar("T")
R = TypeVar("R")
NAME: Final = "Heart federation"
SCIENTIST, AUDITOR = "lena", "jonas"
PEOPLE: Final = {SCIENTIST: ("Lena Vogt", "scientist"), AUDITOR: ("Jonas Brandt", "auditor")}
SQLITE: Final[Mapping[str, str]] = MappingProxyType({})  # each program in a file of its own
RECHECK_SECONDS: Final = 3  # how often a site of the demo reads the whole federation log again


@dataclass(frozen=True, slots=True, kw_only=True)
class Hospital:
    """A hospital of the demo. heart: its name among the heart files. house: rules that its officer ticks."""

    key: str
    heart: str
    title: str
    owner: str
    officer: str
    house: tuple[str, ...] = ()


HOSPITALS: Final = (
    Hospital(key="cleveland", heart="cleveland", title="Cleveland", owner="Cleveland Heart Clinic", officer="Ruth Keller"),
    Hospital(key="budapest", heart="hungarian", title="Budapest", owner="Hungarian Institute of Cardiology", officer="Judit Fekete"),
    Hospital(
        key="zurich-basel",
        heart="switzerland",
        title="Zurich and Basel",
        owner="University Hospitals of Zurich and Basel",
        officer="Urs Imhof",
        house=("no-purpose purpose=product-development",),
    ),
    Hospital(key="long-beach", heart="va", title="Long Beach", owner="Veterans Hospital, Long Beach", officer="Frank Hollis"),
)  # fmt: skip
BY_KEY: Final = {hospital.key: hospital for hospital in HOSPITALS}


class LogSeen(msgspec.Struct, frozen=True):
    """A log as a site sees it."""

    size: int
    trouble: str = ""
    cosigned: int = 0


class RunSeen(msgspec.Struct, frozen=True):
    """A run at a site. budget: head of the ledger that its last contribution carried."""

    run: str
    over: bool
    step: int
    budget: str = ""


class SiteSeen(msgspec.Struct, frozen=True):
    """What a site's officer is told (GET /api/site), as far as the scenes look. budget: head of the ledger."""

    site: str
    status: str
    patients: int
    attestation: str
    budget: str
    federation_log: LogSeen
    runs: tuple[RunSeen, ...]


class Joined(msgspec.Struct, frozen=True):
    """What `paroma site join --json` prints."""

    site: str
    again: bool


class _Url(msgspec.Struct, frozen=True):
    url: str


class _Line(msgspec.Struct, frozen=True):
    line: str


class _Invitation(msgspec.Struct, frozen=True):
    invitation: str


@dataclass(slots=True)
class Running:
    """The five processes and the folder they live in. databases: addresses, of the programs that have no SQLite file."""

    folder: Path
    ports: Mapping[str, int]
    programs: Programs
    hub: Program
    sites: dict[str, Program]
    databases: Mapping[str, str] = field(default_factory=dict)

    def site_folder(self, key: str) -> Path:
        """Folder of a site."""
        return self.folder / key

    def start_hub(self) -> None:
        """Start, or start again."""
        port = self.ports["hub"]
        self.hub.start(lambda: listening(port))

    def start_sites(self, *keys: str) -> None:
        """Start these sites (all if none is named); they come up side by side."""
        chosen = keys or tuple(self.sites)
        for key in chosen:
            self.sites[key].start(lambda: True)
        for key in chosen:
            self.sites[key].await_ready(partial(listening, self.ports[key]))

    def stop_all(self) -> None:
        """Stop the sites, then the hub; they can be started again."""
        for program in (*self.sites.values(), self.hub):
            program.stop()

    def command(self, *arguments: str | Path) -> str:
        """A `paroma` command as somebody at this federation's machine would type it."""
        return call(*arguments, env=self.environment())

    def environment(self) -> dict[str, str]:
        """The environment of every child: nothing of the caller's own Paroma settings."""
        kept = {name: value for name, value in os.environ.items() if not name.startswith("PAROMA_")}
        ours = {"PAROMA_HOME": str(self.folder / "people"), "PYTHONUNBUFFERED": "1"}
        return kept | ours | ({"PAROMA_HUB_STORE": self.databases["hub"]} if "hub" in self.databases else {})

    def talk(self, profile: str) -> Talk:
        """Speak as one of the people, with their own key."""
        where = self.folder / "people" / profile
        who = profiles.load(where)
        key = key_files.load(where / profiles.KEY)
        network = Ways().known(who.origin, who.authority)
        return Talk(who, key, network, clock=SystemClock(), randomness=OsRandomness())

    def patient_link(self, key: str, patient: str) -> str:
        """A single-use link to a patient's pages, as the desk prints it."""
        said = self.command("site", "patient-link", patient, "--folder", self.site_folder(key), "--json")
        return msgspec.json.decode(said, type=_Url).url

    def site_seen(self, key: str) -> SiteSeen:
        """The site as its officer sees it."""
        talk = self.talk(key)
        try:
            return talk.get("/api/site", SiteSeen)
        finally:
            talk.close()


def new_folder(environ: Mapping[str, str] = os.environ) -> Path:
    """A fresh folder for this federation; what an earlier demo left is removed if nobody uses it any more."""
    state = environ.get("XDG_STATE_HOME")
    home = (Path(state) if state else Path.home() / ".local" / "state") / "paroma"
    try:
        home.mkdir(parents=True, exist_ok=True, mode=0o700)
        for old in home.glob("demo-*"):
            if not _in_use(old):
                shutil.rmtree(old, ignore_errors=True)
        made = Path(tempfile.mkdtemp(prefix="demo-", dir=home))
    except OSError:  # a home that cannot be written to
        made = Path(tempfile.mkdtemp(prefix="paroma-demo-"))
    (made / "pid").write_text(str(os.getpid()))
    return made


def prepare(folder: Path, programs: Programs, databases: Mapping[str, str] = SQLITE) -> Running:
    """Write the records, make the hub, choose ports. Starts nothing. databases: by `hub` or a hospital's key."""
    ports = {"hub": free_port(), **{hospital.key: free_port() for hospital in HOSPITALS}}
    logs = folder / "logs"
    logs.mkdir()
    running = Running(folder, ports, programs, _program("hub", folder / "hub", logs), {}, databases)
    heart.write(folder / "records")
    running.command("hub", "init", NAME, "--folder", folder / "hub", "--port", str(ports["hub"]))
    running.hub.env = running.environment()
    programs.add(running.hub)
    for hospital in HOSPITALS:
        program = _program("site", running.site_folder(hospital.key), logs)
        program.env = running.environment()
        running.sites[hospital.key] = programs.add(program)
    return running


def join_all(running: Running) -> dict[str, Joined]:
    """Each hospital joins with one line and brings its records in. Then all run."""

    def join(hospital: Hospital) -> Joined:
        hub, folder = running.folder / "hub", running.site_folder(hospital.key)
        said = running.command("hub", "invite", "--folder", hub, "--owner", hospital.owner, "--json")
        line = msgspec.json.decode(said, type=_Invitation).invitation
        said = running.command(
            "site", "join", line, "--folder", folder, "--title", hospital.title, "--owner", hospital.owner,
            "--port", str(running.ports[hospital.key]), "--json",
        )  # fmt: skip
        with (folder / "site.toml").open("a") as settings:
            settings.write(f"recheck_seconds = {RECHECK_SECONDS}\n")
            settings.write('phone = "extension 5100"\nhours = "9 to 17"\n')
            if hospital.key in running.databases:
                settings.write(f'store = "{running.databases[hospital.key]}"\n')
        with as_file(files("paroma.lab") / "heart_data_set.json") as described:
            records = running.folder / "records" / f"{hospital.heart}.ndjson"
            running.command("site", "load", records, "--data-set", described, "--folder", folder)
        return msgspec.json.decode(said, type=Joined)

    joined = dict(zip((h.key for h in HOSPITALS), side_by_side(join, HOSPITALS), strict=True))
    running.start_sites()
    return joined


def enrol_all(running: Running) -> None:
    """Officers at their sites, scientist and auditor at the hub: each makes a key and enrols it with one line; officers then
    tick their house rules.
    """

    def officer(hospital: Hospital) -> None:
        said = running.command(
            "site", "officer-link", hospital.officer, "--folder", running.site_folder(hospital.key), "--json"
        )
        _login(running, said, hospital.key)
        for rule in hospital.house:
            running.command("site", "rules", "add", *rule.split(), "--profile", hospital.key, "--json")

    def person(profile: str) -> None:
        name, role = PEOPLE[profile]
        said = running.command("hub", "enrol-link", name, "--role", role, "--folder", running.folder / "hub", "--json")
        _login(running, said, profile)

    def enrol(one: Hospital | str) -> None:
        if isinstance(one, Hospital):
            officer(one)
        else:
            person(one)

    everybody: list[Hospital | str] = [*HOSPITALS, *PEOPLE]
    side_by_side(enrol, everybody)


def side_by_side(work: Callable[[T], R], items: Sequence[T]) -> list[R]:
    """`work` on each item, a few at once; the results in order."""
    with ThreadPoolExecutor(4, thread_name_prefix="demo") as pool:
        return list(pool.map(work, items))


def copied(running: Running, folder: Path, programs: Programs) -> Running:
    """The whole federation once more, as it lies on the disk, for the same ports: neither may run meanwhile."""
    folder.mkdir(mode=0o700)
    for name in ("hub", "people", *running.sites):
        shutil.copytree(running.folder / name, folder / name)
    logs = folder / "logs"
    logs.mkdir()
    twin = Running(folder, running.ports, programs, _program("hub", folder / "hub", logs), {})
    twin.hub.env = twin.environment()
    programs.add(twin.hub)
    for key in running.sites:
        program = _program("site", twin.site_folder(key), logs)
        program.env = twin.environment()
        twin.sites[key] = programs.add(program)
    return twin


def _login(running: Running, said: str, profile: str) -> None:
    line = msgspec.json.decode(said, type=_Line).line
    running.command("login", line, "--profile", profile, "--json")


def _program(kind: str, folder: Path, logs: Path) -> Program:
    return Program(folder.name, command(kind, "run", "--folder", folder), logs / f"{folder.name}.log")


def _in_use(folder: Path) -> bool:
    try:
        os.kill(int((folder / "pid").read_text()), 0)
    except (OSError, ValueError):
        return False
    return True
