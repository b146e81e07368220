"""`paroma hub`: at the hub's own machine, on its folder."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from paroma.cli import show
from paroma.cli.show import Json
from paroma.kernel.clock import iso

if TYPE_CHECKING:
    from paroma.hub.lifecycle import Ended

APP = show.app("The meeting point: make it, run it, invite sites and people, shut them off.")
MEMBER = show.app("Isolate a member, let it in again, or end its membership.")
PERSON = show.app("Who is enrolled at the hub; shut somebody off.")
KEY = show.app("Shut off whoever holds a key.")
PERMIT = show.app("End a permit, and its runs at once.")
APP.add_typer(MEMBER, name="member")
APP.add_typer(PERSON, name="person")
APP.add_typer(KEY, name="key")
APP.add_typer(PERMIT, name="permit")
Folder = Annotated[Path, typer.Option("--folder", help="The hub's folder.")]
SiteName = Annotated[str, typer.Argument(help="The site's id, as `paroma hub members` shows it.")]
Reason = Annotated[str, typer.Option(help="Why, in a sentence: it stands in the federation log.")]
HERE = Path("hub")


@APP.command()
def init(
    name: Annotated[str, typer.Argument(help="What the federation is called.")],
    folder: Folder = HERE,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=1, max=65535, help="Port to listen on.")] = 8443,
    url: Annotated[str | None, typer.Option(help="Address under which members reach it, if another.")] = None,
    key: Annotated[
        str,
        typer.Option(
            envvar="PAROMA_HUB_SIGNING_KEY", help="Name of a key in an HSM, TPM or KMS to sign with; made if need be."
        ),
    ] = "",
    *,
    json: Json = False,
) -> None:
    """Make a hub's folder: settings, keys, an empty database. Safe to repeat."""
    from paroma.hub import commands

    made = commands.init(folder, name, host=host, port=port, url=url, key=key)
    text = f"{made.name} lies in {folder}\n  next: paroma hub run --folder {folder}"
    show.done({"name": made.name, "url": made.url, "folder": str(folder)}, text, json=json)


@APP.command()
def run(folder: Folder = HERE, *, json: Json = False) -> None:
    """Serve until Ctrl-C."""
    from paroma.hub import commands
    from paroma.hub.settings import HubSettings

    def ready(settings: HubSettings) -> None:
        show.done({"url": settings.url}, f"{settings.name} listens at {settings.url}", json=json)

    commands.run(folder, ready)


@APP.command()
def invite(
    folder: Folder = HERE,
    owner: Annotated[str | None, typer.Option(help="Whom the site must belong to.")] = None,
    *,
    json: Json = False,
) -> None:
    """Print one line that lets one site join. Pass it on like a password."""
    from paroma.hub import commands

    line = commands.invite(folder, owner)
    show.done({"invitation": line}, line, json=json)


@APP.command("enrol-link")
def enrol_link(
    name: Annotated[str, typer.Argument(help="The person's name.")],
    role: Annotated[str, typer.Option(help="scientist, committee, operator or auditor.")] = "scientist",
    folder: Folder = HERE,
    *,
    provider: Annotated[
        bool, typer.Option("--provider", help="An address for somebody who signs in at the provider.")
    ] = False,
    json: Json = False,
) -> None:
    """Print one line that lets one person log in. Pass it on like a password."""
    from paroma.hub import commands

    line = commands.enrol_link(folder, name, role, provider=provider)
    show.done({"line": line, "name": name, "role": role}, line, json=json)


@APP.command()
def members(folder: Folder = HERE, *, json: Json = False) -> None:
    """Who belongs to the federation, and who is online."""
    from paroma.hub import operator

    found = operator.member_list(folder)
    rows = [(one.title, one.owner, _status(one.status, one.seen), one.site, one.key) for one in found]
    text = show.table(("hospital", "owner", "status", "site", "key"), rows, none="no site has joined yet")
    show.done({"members": found}, text, json=json)


@MEMBER.command()
def quarantine(site: SiteName, *, reason: Reason, folder: Folder = HERE, json: Json = False) -> None:
    """Isolate a site at once: its requests are cut, no run waits for it. It goes on recording withdrawals."""
    from paroma.hub import operator

    _ended(operator.quarantine(folder, site, reason), json=json)


@MEMBER.command()
def release(site: SiteName, *, reason: Reason, folder: Folder = HERE, json: Json = False) -> None:
    """Let a site in again that was isolated."""
    from paroma.hub import operator

    _ended(operator.release(folder, site, reason), json=json)


@MEMBER.command()
def remove(site: SiteName, *, reason: Reason, folder: Folder = HERE, json: Json = False) -> None:
    """End a site's membership for good. To come back it needs a new invitation and a new folder."""
    from paroma.hub import operator

    _ended(operator.remove(folder, site, reason), json=json)


@PERSON.command("list")
def person_list(folder: Folder = HERE, *, json: Json = False) -> None:
    """Everybody who is or was enrolled at the hub."""
    from paroma.hub import operator

    found = operator.person_list(folder)
    value = [
        {"person": p.person, "name": p.name, "role": p.role, "enrolled": p.enrolled, "revoked": p.revoked,
         "key": p.thumbprint}
        for p in found
    ]  # fmt: skip
    show.done({"people": value}, show.people(found), json=json)


@PERSON.command("revoke")
def person_revoke(
    person: Annotated[str, typer.Argument(help="The person's id, as `paroma hub person list` shows it.")],
    *,
    reason: Reason,
    folder: Folder = HERE,
    json: Json = False,
) -> None:
    """Shut somebody off at once: key, sessions, requests that wait, and the runs that they opened."""
    from paroma.hub import operator

    _ended(operator.revoke_person(folder, person, reason), json=json)


@KEY.command("revoke")
def key_revoke(
    key: Annotated[str, typer.Argument(help="The key's thumbprint (RFC 7638).")],
    *,
    reason: Reason,
    folder: Folder = HERE,
    json: Json = False,
) -> None:
    """Shut off whoever holds this key: a person is revoked, a site quarantined."""
    from paroma.hub import operator

    _ended(operator.revoke_key(folder, key, reason), json=json)


@PERMIT.command("revoke")
def permit_revoke(
    permit: Annotated[str, typer.Argument(help="The permit's id.")],
    *,
    reason: Reason,
    folder: Folder = HERE,
    json: Json = False,
) -> None:
    """End a permit before its time. All its runs stop at once."""
    from paroma.hub import operator

    _ended(operator.revoke_permit(folder, permit, reason), json=json)


def _status(status: str, seen: float | None) -> str:
    return status if seen is None else f"{status}, seen {show.ago(seen)}"


def _ended(done: "Ended", *, json: bool) -> None:
    said = {"quarantined": "is shut off", "left": "is no member any more", "admitted": "may come again"}
    what = said.get(done.state, f"is {done.state}")
    when = f" already, since {iso(done.at)}" if done.again else ", from now on"
    show.done(done, f"{done.kind} {done.name} ({done.id}) {what}{when}", json=json)
