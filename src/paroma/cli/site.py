"""`paroma site`: at a hospital's own machine, on its folder; and what its officer decides there."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from paroma.cli import rules, show
from paroma.cli.acting import officer
from paroma.cli.show import Json, ProfileName
from paroma.kernel.clock import iso
from paroma.kernel.errors import BadInput

if TYPE_CHECKING:
    from paroma.sdk.officer import Requested

APP = show.app("A hospital's site: join, keep records, decide as its officer.")
APP.add_typer(rules.APP, name="rules")
PERSON = show.app("Who is enrolled at the site; shut somebody off.")
APP.add_typer(PERSON, name="person")
Folder = Annotated[Path, typer.Option("--folder", help="The site's folder.")]
PermitName = Annotated[str, typer.Argument(help="The permit's id.")]
Reason = Annotated[str, typer.Option(help="Why, in a sentence: it stands in the log.")]
HERE = Path("site")
PLACES = {"requests": "/officer", "staff": "/officer/staff", "health": "/officer/health"}


@APP.command()
def join(
    invitation: Annotated[str, typer.Argument(help="The `paroma-join:` line that you were given.")],
    *,
    title: Annotated[str, typer.Option(help="What the hospital is called.")],
    owner: Annotated[str, typer.Option(help="The organisation that owns it.")],
    folder: Folder = HERE,
    port: Annotated[int, typer.Option(min=1, max=65535, help="Port of its own pages, on this machine.")] = 8480,
    key: Annotated[
        str,
        typer.Option(
            envvar="PAROMA_SITE_SIGNING_KEY", help="Name of a key in an HSM, TPM or KMS to sign with; made if need be."
        ),
    ] = "",
    json: Json = False,
) -> None:
    """Join a federation: keys are made here and stay here. Safe to repeat."""
    from paroma.site import commands

    made = commands.join(invitation, folder, owner=owner, title=title, port=port, key=key)
    had = "had joined before" if made.again else "joined"
    text = f"{title} {had}: {made.site} at {made.hub}\n  next: paroma site run --folder {folder}"
    show.done(made, text, json=json)


@APP.command()
def run(folder: Folder = HERE, *, json: Json = False) -> None:
    """Talk with the hub and serve the pages until Ctrl-C."""
    from paroma.site import program
    from paroma.site.settings import SiteSettings

    def ready(settings: SiteSettings) -> None:
        show.done({"pages": settings.origin}, f"the pages are at {settings.origin}", json=json)

    program.run(folder, ready)


@APP.command()
def load(
    files: Annotated[list[Path], typer.Argument(help="FHIR R4 NDJSON files.")],
    *,
    data_set: Annotated[Path, typer.Option("--data-set", help="The data set's description (JSON).")],
    folder: Folder = HERE,
    json: Json = False,
) -> None:
    """Bring records and consents into the vault, all or nothing, and offer the data set. Stop the site first."""
    from paroma.site import commands

    brought = commands.load(folder, files, data_set)
    text = (
        f"{brought.patients} patients, {brought.records} records, {brought.consents} consents brought in; "
        f"{brought.unchanged} patients unchanged"
    )
    if brought.unclear:
        text += f"\nto be asked, their consent cannot be computed: {', '.join(brought.unclear)}"
    show.done(brought, text, json=json)


@APP.command("patient-link")
def patient_link(
    patient: Annotated[str, typer.Argument(help="The patient's id.")], folder: Folder = HERE, *, json: Json = False
) -> None:
    """Print an address that opens a patient's pages: once, in one browser, within 15 minutes."""
    from paroma.site import commands

    url = commands.patient_link(folder, patient)
    show.done({"url": url}, url, json=json)


@APP.command("officer-link")
def officer_link(
    name: Annotated[str, typer.Argument(help="The person's name.")],
    role: Annotated[str, typer.Option(help="officer, desk or auditor.")] = "officer",
    folder: Folder = HERE,
    *,
    provider: Annotated[
        bool, typer.Option("--provider", help="An address for somebody who signs in at the provider.")
    ] = False,
    json: Json = False,
) -> None:
    """Print one line that lets one officer, or the desk, log in. Pass it on like a password."""
    from paroma.site import commands

    line = commands.officer_link(folder, name, role, provider=provider)
    show.done({"line": line, "name": name, "role": role}, line, json=json)


@PERSON.command("list")
def person_list(folder: Folder = HERE, *, json: Json = False) -> None:
    """Everybody who is or was enrolled at the site."""
    from paroma.site import commands

    found = commands.person_list(folder)
    value = [
        {"person": p.person, "name": p.name, "role": p.role, "revoked": p.revoked, "key": p.thumbprint} for p in found
    ]
    show.done({"people": value}, show.people(found), json=json)


@PERSON.command("revoke")
def person_revoke(
    person: Annotated[str, typer.Argument(help="The person's id, as `paroma site person list` shows it.")],
    *,
    reason: Reason,
    folder: Folder = HERE,
    json: Json = False,
) -> None:
    """Shut somebody off at once. What an officer signed with this key holds no more, in the whole federation."""
    from paroma.site import commands

    ended, again = commands.revoke_person(folder, person, reason)
    when = f"had been revoked at {iso(ended.revoked or 0.0)}" if again else "is revoked from now on"
    value = {"person": ended.person, "name": ended.name, "at": ended.revoked, "again": again}
    show.done(value, f"{ended.name} ({ended.person}) {when}", json=json)


@APP.command()
def doctor(*, json: Json = False) -> None:
    """List every wall of the sandbox on this machine. Exit 1 where one that is required does not stand."""
    from paroma.site import commands

    walls = commands.doctor()
    sound = all(wall.there or not wall.required for wall in walls)
    rows = [
        (wall.name, "stands" if wall.there else "MISSING", "required" if wall.required else "wished for", wall.why)
        for wall in walls
    ]
    show.done({"walls": walls, "sound": sound}, show.table(("wall", "", "", "why"), rows, none="no wall"), json=json)
    if not sound:
        raise typer.Exit(1)


@APP.command()
def status(profile: ProfileName = None, *, json: Json = False) -> None:
    """How the site is: line, logs, walls, pause."""
    with officer(profile) as there:
        found = there.site()
    missing = [wall.name for wall in found.walls if not wall.there]
    seen = found.federation_log
    lines = [
        ("site", f"{found.title} ({found.site}), owned by {found.owner}"),
        ("hub", f"{found.hub}, {found.status}"),
        ("paused", "yes: it takes part in nothing" if found.paused else "no"),
        ("patients", str(found.patients)),
        ("own log", f"{found.log.size} entries" + (f", TROUBLE: {found.log.trouble}" if found.log.trouble else "")),
        ("federation log", f"{seen.size} entries" + (f", TROUBLE: {seen.trouble}" if seen.trouble else "")),
        ("walls missing", ", ".join(missing) or "none"),
    ]
    show.done(found, show.paged(show.facts(lines), "paroma site open health"), json=json)


@APP.command()
def requests(profile: ProfileName = None, *, json: Json = False) -> None:
    """What is asked of this hospital."""
    with officer(profile) as there:
        found = there.requests()
    rows = [(one.permit.title, one.permit.purpose, one.asked_by, one.state, one.permit.id) for one in found]
    text = show.table(("study", "purpose", "asked by", "state", "permit"), rows, none="nothing is asked")
    show.done({"requests": found}, show.paged(text, "paroma site open"), json=json)


@APP.command("open")
def open_(
    place: Annotated[str, typer.Argument(help="requests, staff, health, or a permit's id.")] = "requests",
    profile: ProfileName = None,
    *,
    json: Json = False,
) -> None:
    """Print an address that opens the officer's pages in a browser, once, within 15 minutes."""
    to = PLACES.get(place)
    if to is None:
        if not place.startswith("permit-"):
            raise BadInput("there is no such page", do=f"name one of {', '.join(PLACES)}, or a permit's id")
        to = f"/officer/requests/{place}"
    with officer(profile) as there:
        url = there.link(to)
    show.done({"url": url}, url, json=json)


@APP.command()
def sign(
    name: PermitName,
    digest: Annotated[
        str | None, typer.Option(help="Sign only the permit with this digest, as its page shows it.")
    ] = None,
    profile: ProfileName = None,
    *,
    json: Json = False,
) -> None:
    """Sign a permit with your own key, made on this machine."""
    with officer(profile) as there:
        found = there.sign(name, digest=digest)
    _said("signed", found, json=json)


@APP.command()
def refuse(
    name: PermitName,
    reason: Annotated[str, typer.Option(help="Why, in words that the applicant reads.")],
    profile: ProfileName = None,
    *,
    json: Json = False,
) -> None:
    """Say no to a permit, with a reason."""
    with officer(profile) as there:
        found = there.refuse(name, reason)
    _said("refused", found, json=json)


@APP.command()
def revoke(name: PermitName, *, reason: Reason, profile: ProfileName = None, json: Json = False) -> None:
    """End a valid permit at this hospital: nothing more under it, whatever runs. The applicant reads the reason."""
    with officer(profile) as there:
        done = there.revoke(name, reason)
    when = f"had been ended here at {iso(done.at)}" if done.again else "is ended here, from now on"
    show.done(done, f"permit {done.name} ({done.id}) {when}", json=json)


@APP.command()
def erase(
    patient: Annotated[str, typer.Argument(help="The patient's id.")],
    *,
    reason: Reason,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask once more.")] = False,
    profile: ProfileName = None,
    json: Json = False,
) -> None:
    """Destroy a patient's records, for good and in every backup. The running site does it; the log keeps a certificate."""
    if not yes:
        said = typer.prompt(f"The records of {patient} cannot be brought back. Type the patient's id again", err=True)
        if said.strip() != patient:
            raise BadInput("that is another id: nothing was erased", do="repeat the command, or give --yes")
    with officer(profile) as there:
        done = there.erase(patient, reason)
    text = (
        f"{'had been erased before' if done.again else 'erased'}, {iso(done.at)}\n"
        f"certificate: tag {done.tag}, entry {done.entry} of the site log; "
        f"root key {done.epoch} replaced the destroyed one on {done.replicas} replicas"
    )
    show.done(done, text, json=json)


@APP.command()
def pause(profile: ProfileName = None, *, json: Json = False) -> None:
    """Take part in nothing until `resume`; withdrawals are recorded all the same."""
    with officer(profile) as there:
        there.pause()
    show.done({"paused": True}, "paused: this hospital takes part in nothing until `paroma site resume`", json=json)


@APP.command()
def resume(profile: ProfileName = None, *, json: Json = False) -> None:
    """Take part again."""
    with officer(profile) as there:
        there.resume()
    show.done({"paused": False}, "this hospital takes part again", json=json)


def _said(what: str, asked: "Requested", *, json: bool) -> None:
    permit = asked.permit
    text = f"{what}: {permit.title}, for {permit.purpose}, asked by {asked.asked_by}"
    show.done({"permit": permit.id, "state": what}, text, json=json)
