"""Packs: policies as data, with what they are for and their own tests beside them.

A pack is three files: `pack.toml` (what it is, where it comes from), `policies.cedar`, `tests.toml` (asked -> decision and policy).
Those of the release are always in force. A hospital or a hub adds packs of its own; they hold forbids and limits only, so that
they make a decision stricter, never laxer.
"""

import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Final, Literal

import msgspec

from paroma.kernel.errors import BadInput
from paroma.kernel.ids import printable
from paroma.trust.policy import engine
from paroma.trust.policy.engine import PolicyInvalid, Rule

RELEASED: Final = ("base", "ehds", "gdpr", "security", "quality")
FILES: Final = ("pack.toml", "policies.cedar", "tests.toml")
MOST_BYTES: Final = 1 << 18  # of one file
NEEDED: Final = ("id", "because", "to_change", "change")


class PackInvalid(BadInput):
    """A pack lacks a file, holds what it may not, or its files do not fit each other."""


class Meta(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """pack.toml. name: one word. says: what it is for, in words for an officer. sources: laws, standards."""

    name: str
    version: str
    title: str
    says: str
    sources: tuple[str, ...] = ()


class Case(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One test of a pack: the good request of this action, with some facts changed, is decided so, and this policy says why.

    principal, resource: ids, where who asks for what matters. house: house rules that are ticked for this test.
    """

    says: str
    action: str
    facts: dict[str, bool | int | str | list[str]] = {}
    principal: str = ""
    resource: str = ""
    principal_kind: str = ""
    house: tuple[str, ...] = ()
    decision: Literal["allowed", "refused"]
    policy: str
    obliges: dict[str, int | str] = {}


class _Cases(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    test: tuple[Case, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Pack:
    """A pack, read."""

    meta: Meta
    text: str
    rules: tuple[Rule, ...]
    cases: tuple[Case, ...]


@cache
def released(name: str) -> Pack:
    """A pack of this release: one of `RELEASED`, or `house`, whose policies are made when they are ticked."""
    folder = resources.files("paroma.trust.policy") / "policies" / name
    files = {file: (folder / file).read_bytes() for file in FILES if name != "house" or file != "policies.cedar"}
    return read(files | ({"policies.cedar": b""} if name == "house" else {}))


def own(files: Mapping[str, bytes]) -> Pack:
    """A pack that is not of the release: forbids and limits only, under a name of its own. Raises PackInvalid, PolicyInvalid."""
    pack = read(files)
    if pack.meta.name in (*RELEASED, "house"):
        raise PackInvalid(f"`{pack.meta.name}` is a pack of the release", do="give yours another name")
    for rule in pack.rules:
        if rule.effect != "forbid" and not rule.limit:
            raise PackInvalid(
                f"policy `{rule.id}` allows something",
                do="turn it into a forbid, or mark it @limit so that it only obliges",
            )
        if (odd := _named(rule) & stopping()) and _may_refuse(rule):
            raise PackInvalid(
                f"policy `{rule.id}` speaks of `{min(odd)}`, and nobody may be kept from stopping something",
                do='name other actions, for instance `action in Action::"Using"`',
            )
    if not pack.cases:
        raise PackInvalid("the pack has no test", do="write at least one [[test]] into tests.toml")
    return pack


@cache
def stopping() -> frozenset[str]:
    """The actions that stop something (withdraw, pause, revoke, ...), and every group with one of them in it."""
    text = (resources.files("paroma.trust.policy") / "policies" / "schema.cedarschema").read_text("utf-8")
    groups = {name: set(re.split(r",\s*", inside)) for name, inside in re.findall(r"action (\w+) in \[([^]]*)\]", text)}
    stops = {name for name, inside in groups.items() if "Stopping" in inside}
    return frozenset({"every action", "Stopping", *stops, *(group for name in stops for group in groups[name])})


def _may_refuse(rule: Rule) -> bool:
    """Whether a rule can end in a refusal: a limit does where its condition cannot be evaluated, or its words contradict others'."""
    return rule.effect == "forbid" or bool(rule.body.get("conditions")) or "mode" in rule.notes.get("obliges", "")


def _named(rule: Rule) -> frozenset[str]:
    """The actions and groups in a rule's scope."""
    scope = rule.body["action"]
    entities = scope["entities"] if "entities" in scope else [scope["entity"]] if "entity" in scope else []
    return frozenset(one["id"] for one in entities) or frozenset({"every action"})


def read(files: Mapping[str, bytes]) -> Pack:
    """A pack from its files. Raises PackInvalid, PolicyInvalid."""
    for file in FILES:
        if file not in files:
            raise PackInvalid(f"the pack has no `{file}`", do=f"put {', '.join(FILES)} into its folder")
        if len(files[file]) > MOST_BYTES:
            raise PackInvalid(f"`{file}` has {len(files[file])} bytes, {MOST_BYTES} are the most", do="split the pack")
    try:
        meta = msgspec.convert(tomllib.loads(files["pack.toml"].decode()), type=Meta)
        cases = msgspec.convert(tomllib.loads(files["tests.toml"].decode()), type=_Cases).test
        text = files["policies.cedar"].decode()
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, msgspec.ValidationError) as problem:
        raise PackInvalid(
            f"the pack cannot be read: {printable(str(problem), longest=200)}",
            do="compare it with a pack of the release",
        ) from problem
    if not meta.name.isidentifier() or len(meta.name) > 40:
        raise PackInvalid(f"`{printable(meta.name)}` is no name of a pack", do="use one word of letters and digits")
    rules = engine.read_rules(text) if text.strip() else ()
    for rule in rules:
        needed = ("id", "because") if rule.limit else NEEDED
        for note in needed:
            if not rule.notes.get(note):
                raise PolicyInvalid(f"policy `{rule.id}` has no @{note}", do="say it: a refusal must explain itself")
    return Pack(meta=meta, text=text, rules=rules, cases=cases)


def from_folder(folder: Path) -> dict[str, bytes]:
    """The files of a pack in a folder. Raises PackInvalid, OSError."""
    if not folder.is_dir():
        raise PackInvalid(f"`{folder}` is no folder", do=f"name a folder with {', '.join(FILES)}")
    return {file: (folder / file).read_bytes() for file in FILES if (folder / file).is_file()}


def source_of(text: str, policy: str) -> str:
    """The Cedar text of one policy, as it stands in its pack; empty where it is not in there."""
    start = text.find(f'@id("{policy}")')
    if start < 0:
        return ""
    end = text.find("\n@id(", start)
    return text[start : end if end > 0 else len(text)].split("\n\n//", maxsplit=1)[0].strip()
