"""`paroma policy`: test packs here; ask a site or a hub why it decided so, and what another policy would change."""

import re
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from paroma.cli import show
from paroma.cli.acting import policy_desk
from paroma.cli.show import Json, ProfileName
from paroma.kernel import canonical
from paroma.kernel.clock import iso
from paroma.kernel.errors import BadInput
from paroma.kernel.ids import printable
from paroma.trust.policy.said import Explained, InForce, Replayed

APP = show.app("Policies: test packs, explain a decision, see what a change would do before it is made.")
Since = Annotated[str, typer.Option(help="Since when: `24h`, `7d`, or a date such as 2026-11-23.")]
UNITS = {"m": 60.0, "h": 3600.0, "d": 86400.0}


@APP.command("test")
def check(
    pack: Annotated[str | None, typer.Argument(help="A pack of the release, or a folder with a pack.")] = None,
    *,
    json: Json = False,
) -> None:
    """Decide the tests of a pack, or of all packs of the release. Exit 1 where one comes out wrong."""
    from paroma.trust.policy import packs, trial

    known = (*packs.RELEASED, "house")
    if pack is None or pack in known:
        outcomes = tuple(one for name in known if pack in {None, name} for one in trial.released(name))
    elif Path(pack).is_dir():
        own = packs.own(packs.from_folder(Path(pack)))
        outcomes = trial.run(own, own=[own])
    else:
        raise BadInput(f"there is no pack `{printable(pack)}`", do=f"name one of {', '.join(known)}, or a folder")
    wrong = [one for one in outcomes if one.wrong]
    rows = [(one.pack, one.says, one.decision, one.policy, one.wrong or "right") for one in outcomes]
    text = show.table(("pack", "test", "decision", "policy", ""), rows, none="the pack has no test")
    show.done({"tests": outcomes, "wrong": len(wrong)}, f"{text}\n{len(outcomes)} tests, {len(wrong)} wrong", json=json)
    if wrong:
        raise typer.Exit(1)


@APP.command()
def packs(profile: ProfileName = None, *, json: Json = False) -> None:
    """The packs in force and on trial."""
    with policy_desk(profile) as there:
        found = there.in_force()
    _in_force(found, json=json)


@APP.command()
def decisions(profile: ProfileName = None, *, json: Json = False) -> None:
    """The newest decisions that are kept, with their ids."""
    with policy_desk(profile) as there:
        found = there.decisions()
    rows = [
        (iso(one.at), one.action, one.principal, "allowed" if one.allowed else "refused", one.policy, one.decision[:12])
        for one in found
    ]
    head = ("at", "action", "principal", "decision", "policy", "id")
    show.done({"decisions": found}, show.table(head, rows, none="nothing was decided yet"), json=json)


@APP.command()
def explain(
    decision: Annotated[str | None, typer.Argument(help="A decision's id, or the beginning of one.")] = None,
    ask: Annotated[Path | None, typer.Option(help="A request as JSON: action, principal, resource, facts.")] = None,
    profile: ProfileName = None,
    *,
    json: Json = False,
) -> None:
    """Say why: policy, facts, and the smallest change that would turn a refusal, which was tried."""
    if (decision is None) == (ask is None):
        raise BadInput("a decision or a request is to be explained", do="give an id, or `--ask FILE`")
    with policy_desk(profile) as there:
        if ask is not None:
            content = canonical.decode(ask.read_bytes())
            if not isinstance(content, dict):
                raise BadInput(
                    f"`{ask}` holds no request", do="write an object with action, principal, resource, facts"
                )
            found = there.explain_ask(dict(content))
        else:
            found = there.explain(_part(decision or ""))
    show.done(found, _explained(found), json=json)


@APP.command()
def replay(
    new: Annotated[Path, typer.Argument(help="A folder with the pack that is to come.")],
    since: Since = "24h",
    profile: ProfileName = None,
    *,
    json: Json = False,
) -> None:
    """Decide again, under one more pack, what was decided since a time: which decisions would flip. Changes nothing."""
    with policy_desk(profile) as there:
        found = there.replay(moment(since, time.time()), files=_files(new))
    show.done(found, replayed(found), json=json)


@APP.command()
def stage(
    folder: Annotated[Path, typer.Argument(help="A folder with a pack.")],
    profile: ProfileName = None,
    *,
    json: Json = False,
) -> None:
    """Put a pack on trial: every decision is also made with it, differences are kept, nothing follows from them."""
    with policy_desk(profile) as there:
        found = there.stage(_files(folder))
    _in_force(found, json=json)


@APP.command()
def differences(profile: ProfileName = None, *, json: Json = False) -> None:
    """What the packs on trial would have decided otherwise so far."""
    with policy_desk(profile) as there:
        found = there.differences()
    if not found.trial:
        show.done(found, "no pack is on trial", json=json)
        return
    rows = [
        (
            iso(one.at),
            one.action,
            "allowed, would be refused" if one.allowed else "refused, would be allowed",
            one.policy,
            str(one.times),
            one.decision[:12],
        )
        for one in found.found
    ]
    none = f"no difference in {found.decisions} decisions since {iso(found.since)}"
    head = ("last", "action", "difference", "policy", "times", "id")
    show.done(found, show.table(head, rows, none=none), json=json)


@APP.command()
def activate(
    pack: Annotated[str, typer.Argument(help="Name of the pack on trial.")],
    profile: ProfileName = None,
    *,
    json: Json = False,
) -> None:
    """Put the pack on trial in force, from the next decision on."""
    with policy_desk(profile) as there:
        found = there.activate(_part(pack))
    _in_force(found, json=json)


@APP.command()
def retire(
    pack: Annotated[str, typer.Argument(help="Name of a pack that is not the release's.")],
    profile: ProfileName = None,
    *,
    json: Json = False,
) -> None:
    """Take a pack out: from its trial, or from force."""
    with policy_desk(profile) as there:
        found = there.retire(_part(pack))
    _in_force(found, json=json)


def moment(text: str, now: float) -> float:
    """The time (unix s) that `24h`, `7d` or an ISO date names. Raises BadInput."""
    if match := re.fullmatch(r"([0-9]{1,6})([mhd])", text):
        return now - int(match[1]) * UNITS[match[2]]
    try:
        at = datetime.fromisoformat(text)
    except ValueError as problem:
        raise BadInput(f"`{printable(text)}` is no time", do="write `24h`, `7d`, or 2026-11-23") from problem
    return (at if at.tzinfo is not None else at.replace(tzinfo=UTC)).timestamp()


def replayed(found: Replayed) -> str:
    """What would flip, as a table."""
    rows = [
        (
            iso(one.at),
            one.action,
            one.resource,
            "allowed -> refused" if one.allowed else "refused -> allowed",
            one.policy,
            one.because,
        )
        for one in found.flips
    ]
    table = show.table(("last", "action", "about", "flips", "policy", "because"), rows, none="none would flip")
    return f"{found.decisions} decisions since {iso(found.since)} decided again, {len(found.flips)} flip\n{table}"


def _files(folder: Path) -> dict[str, str]:
    from paroma.trust.policy import packs

    files = packs.from_folder(folder)
    packs.own(files)  # a pack that cannot be read is told here, before it is sent
    return {name: content.decode() for name, content in files.items()}


def _part(name: str) -> str:
    if not name.isascii() or (not name.isidentifier() and not name.isalnum()):  # it becomes a part of an address
        raise BadInput(f"`{printable(name)}` is no id", do="copy it from `paroma policy decisions` or `packs`")
    return name


def _in_force(found: InForce, *, json: bool) -> None:
    rows = [(one.name, one.version, one.state, str(one.policies), one.title) for one in found.packs]
    text = show.table(("pack", "version", "state", "policies", "title"), rows, none="no pack")
    show.done(found, f"{text}\nin force: {found.policies}", json=json)


def _explained(found: Explained) -> str:
    lines = [
        ("action", f"{found.action} by {found.principal} of {found.resource}"),
        ("decision", "allowed" if found.allowed else "refused"),
        ("policies", found.policies),
    ]
    blocks = [show.facts(lines)]
    for one in found.deciding:
        head = f"policy `{one.policy}`: {one.because}"
        blocks.append("\n".join(filter(None, (head, f"  do: {one.to_change}" if one.to_change else "", one.text))))
    if found.obliges:
        shown = [(name, ", ".join(v) if isinstance(v, list) else str(v)) for name, v in found.obliges.items()]
        blocks.append("obliges to\n" + show.facts(shown))
    if found.changes:
        changed = [(one.fact, f"{one.now} -> {one.helps}") for one in found.changes]
        blocks.append("the smallest change that turns it, tried:\n" + show.facts(changed))
    elif not found.allowed:
        blocks.append("no change of a fact turns it")
    blocks.append("facts\n" + show.facts([*found.facts.items()]))
    return "\n\n".join(blocks)
