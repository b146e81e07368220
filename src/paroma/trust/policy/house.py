"""House rules: what a hospital's officer ticks, as sentences with parameters, and the Cedar that each becomes.

Parameters are typed: one of a list, some of a list, a whole number within bounds, or a text of a narrow pattern. A value never
holds a quote, a brace or a backslash, so what is filled in cannot change what the sentence says. A sentence becomes a forbid or a
limit, never an allowance: a house can be stricter than the federation, not laxer.
"""

import hashlib
import re
import tomllib
from collections.abc import Iterable, Mapping
from functools import cache
from importlib import resources
from typing import Final

import msgspec

from paroma.kernel.errors import BadInput
from paroma.kernel.ids import printable

MOST_RULES: Final = 64
_HOLE = re.compile(r"<([a-z]+)(?::([a-z]+))?>")


class RuleInvalid(BadInput):
    """A house rule names no sentence, or gives it something that does not fit."""


class Parameter(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a sentence leaves open. asks: the question to the officer. Exactly one of choices, some, pattern, most is set.

    other: values of which the first that was not chosen is offered as the way out of a refusal.
    """

    asks: str
    choices: tuple[str, ...] = ()
    some: tuple[str, ...] = ()
    pattern: str = ""
    least: int = 0
    most: int = 0
    other: tuple[str, ...] = ()


class Sentence(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A sentence that an officer may tick. name: how a rule names it. Its other texts have holes such as `<purpose>`."""

    id: str
    name: str
    says: str
    because: str
    to_change: str = ""
    change: str = ""
    scope: str = ""
    when: str = ""
    unless: str = ""
    obliges: str = ""
    parameters: dict[str, Parameter] = {}


class HouseRule(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, order=True):
    """A ticked sentence with its parameters, each as text."""

    sentence: str
    given: tuple[tuple[str, str], ...] = ()

    def __str__(self) -> str:
        return " ".join((self.sentence, *(f"{name}={value}" for name, value in self.given)))


@cache
def sentences() -> Mapping[str, Sentence]:
    """Every sentence that may be ticked, by name, in the file's order."""
    text = (resources.files("paroma.trust.policy") / "policies" / "house" / "sentences.toml").read_text("utf-8")
    found = msgspec.convert(tomllib.loads(text)["sentence"], type=tuple[Sentence, ...])
    return {one.name: one for one in found}


def parse(text: str) -> HouseRule:
    """A rule from `name parameter=value ...`; a value may hold spaces. Raises RuleInvalid."""
    name, _, rest = text.strip().partition(" ")
    places = [*re.finditer(r"(?:^|\s)([a-z]+)=", rest)]
    if bool(rest.strip()) != bool(places) or (places and rest[: places[0].start()].strip()):
        raise RuleInvalid(f"`{printable(rest)}` is no parameter", do="write `name=value`")
    ends = [*(place.start() for place in places[1:]), len(rest)][: len(places)]
    given = tuple((place[1], rest[place.end() : end].strip()) for place, end in zip(places, ends, strict=True))
    return checked(HouseRule(sentence=name, given=given))


def checked(rule: HouseRule) -> HouseRule:
    """The rule, its parameters in order. Raises RuleInvalid, which says what the sentence asks for."""
    sentence = sentences().get(rule.sentence)
    if sentence is None:
        known = ", ".join(sentences())
        raise RuleInvalid(f"the house has no sentence `{printable(rule.sentence)}`", do=f"name one of {known}")
    given = dict(rule.given)
    if len(given) != len(rule.given) or set(given) != set(sentence.parameters):
        asked = " ".join(f"{name}=... ({one.asks})" for name, one in sentence.parameters.items()) or "no parameter"
        raise RuleInvalid(f"`{sentence.name}` needs {asked}", do=f"write `{sentence.name}` with exactly that")
    return HouseRule(
        sentence=sentence.name,
        given=tuple((name, _value(name, one, given[name])) for name, one in sentence.parameters.items()),
    )


def said(rule: HouseRule) -> str:
    """The sentence, as a person reads it."""
    return _filled(sentences()[rule.sentence].says, rule)


def cedar(rules: Iterable[HouseRule]) -> str:
    """The rules as Cedar text, in a fixed order. Raises RuleInvalid."""
    whole = sorted({checked(rule) for rule in rules})
    if len(whole) > MOST_RULES:
        raise RuleInvalid(f"there are {len(whole)} house rules, {MOST_RULES} are the most", do="take some out")
    return "\n".join(_policy(rule) for rule in whole)


def policy_id(rule: HouseRule) -> str:
    """The id under which a refusal names the rule."""
    parts = []
    for name, value in rule.given:
        slug = re.sub(r"[^a-z0-9]+", "-", value.lower()).strip("-")
        told = sentences()[rule.sentence].parameters[name].pattern and slug != value.lower()
        parts.append((name, f"{slug}-{hashlib.sha256(value.encode()).hexdigest()[:6]}" if told else slug))
    template = sentences()[rule.sentence].id
    for name, slug in parts:
        template = template.replace(f"<{name}>", slug)
    return template


def _policy(rule: HouseRule) -> str:
    sentence = sentences()[rule.sentence]
    notes = [("id", policy_id(rule)), ("because", _filled(sentence.because, rule)), ("sentence", said(rule))]
    if sentence.obliges:
        notes += [("obliges", _filled(sentence.obliges, rule))]
        # the sites in a sum are known when a set is proposed, the rest when a contribution is made
        action = (
            'in [Action::"TakePart", Action::"Vote"]' if "least_sites" in sentence.obliges else '== Action::"TakePart"'
        )
        head, tail = f"permit(principal is Hub, action {action}, resource is Study)", ";"
        lines = [*(f'@{name}("{text}")' for name, text in notes), "@limit", head + tail]
        return "\n".join(lines) + "\n"
    notes += [("to_change", _filled(sentence.to_change, rule)), ("change", _filled(sentence.change, rule))]
    scope = "==" if sentence.scope == "TakePart" else "in"
    word, condition = ("when", sentence.when) if sentence.when else ("unless", sentence.unless)
    lines = [
        *(f'@{name}("{text}")' for name, text in notes),
        f'forbid(principal, action {scope} Action::"{sentence.scope}", resource)',
        f"{word} {{ {_filled(condition, rule)} }};",
    ]
    return "\n".join(lines) + "\n"


def _filled(text: str, rule: HouseRule) -> str:
    given = dict(rule.given)
    parameters = sentences()[rule.sentence].parameters

    def value(hole: re.Match[str]) -> str:
        name, form = hole.groups()
        if name == "other":
            chosen = set(given.values())
            return next(one for p in parameters.values() for one in p.other if one not in chosen)
        match form:
            case "thousandths":
                return str(1000 * int(given[name]))
            case "list":
                return "[" + ", ".join(f'"{one}"' for one in given[name].split(",")) + "]"
            case "first":
                return given[name].split(",")[0]
            case _:
                return given[name].replace(",", ", ") if parameters[name].some else given[name]

    return _HOLE.sub(value, text)


def _value(name: str, asked: Parameter, given: str) -> str:
    """The value in its one form. Raises RuleInvalid."""
    if asked.choices and given in asked.choices:
        return given
    some = {one.strip() for one in given.split(",")}
    if asked.some and some <= set(asked.some):
        return ",".join(one for one in asked.some if one in some)
    if asked.pattern and re.fullmatch(asked.pattern, given):
        return given
    if asked.most and re.fullmatch(r"[0-9]{1,9}", given) and asked.least <= int(given) <= asked.most:
        return str(int(given))
    wanted = (
        f"one of {', '.join(asked.choices)}"
        if asked.choices
        else f"some of {', '.join(asked.some)}, with commas"
        if asked.some
        else f"a whole number from {asked.least} to {asked.most}"
        if asked.most
        else "letters, digits and simple punctuation"
    )
    raise RuleInvalid(f"`{name}` is `{printable(given)}`, asked for is {asked.asks}", do=f"give {wanted}")
