"""`paroma site rules`: the hospital's own sentences, ticked by its officer."""

import time
from typing import Annotated

import typer

from paroma.cli import policy, show
from paroma.cli.acting import policy_desk
from paroma.cli.policy import Since
from paroma.cli.show import Json, ProfileName
from paroma.kernel.clock import iso
from paroma.trust.policy.said import HouseSaid

APP = show.app("House rules: sentences that your hospital's officer ticks. They make decisions stricter, never laxer.")
RuleWords = Annotated[list[str], typer.Argument(help="A sentence's name, then `parameter=value`; see `list`.")]


@APP.command("list")
def list_(profile: ProfileName = None, *, json: Json = False) -> None:
    """The rules in force, and the sentences that may be ticked."""
    with policy_desk(profile) as there:
        found = there.house()
    _show(found, json=json)


@APP.command()
def add(rule: RuleWords, profile: ProfileName = None, *, json: Json = False) -> None:
    """Tick a sentence: it holds from the next decision on, and stands in the site log."""
    with policy_desk(profile) as there:
        found = there.change_house(add=(" ".join(rule),))
    _show(found, json=json)


@APP.command()
def remove(rule: RuleWords, profile: ProfileName = None, *, json: Json = False) -> None:
    """Take a rule out, from the next decision on."""
    with policy_desk(profile) as there:
        found = there.change_house(remove=(" ".join(rule),))
    _show(found, json=json)


@APP.command()
def preview(rule: RuleWords, since: Since = "24h", profile: ProfileName = None, *, json: Json = False) -> None:
    """Which decisions since a time this rule would have turned. Changes nothing."""
    with policy_desk(profile) as there:
        found = there.replay(policy.moment(since, time.time()), add=(" ".join(rule),))
    show.done(found, policy.replayed(found), json=json)


def _show(found: HouseSaid, *, json: bool) -> None:
    rows = [(one.rule, one.says) for one in found.rules]
    text = show.table(("rule", "says"), rows, none="no sentence is ticked")
    open_ = [
        (" ".join((one.name, *(f"{name}=..." for name in one.asks))), one.says, "; ".join(one.asks.values()))
        for one in found.sentences
    ]
    more = show.table(("to tick", "says", "asks"), open_, none="")
    when = f"version {found.version}" + (f", since {iso(found.at)} by {found.by}" if found.version else "")
    show.done(found, f"{text}\n{when}\n\n{more}", json=json)
