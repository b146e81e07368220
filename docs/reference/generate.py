# ruff: noqa: INP001, T201, E501
"""Writes the reference from the code: `python docs/reference/generate.py`. A test compares what is committed with it.

Whatever is listed here is read from the programs: settings, routes, kinds of log entries, policies, messages, commands, errors.
What the code cannot say in a sentence stands in the tables below; a new setting, page or kind without a sentence is an error.
"""

import ast
import contextlib
import dataclasses
import importlib
import inspect
import io
import os
import re
import tomllib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final, get_args, get_type_hints

import msgspec
from starlette.routing import Route

HERE: Final = Path(__file__).parent
SOURCE: Final = HERE.parents[1] / "src" / "paroma"
MADE: Final = "<!-- Made by docs/reference/generate.py from the code. Do not edit. -->\n"

SETTINGS: Final[Mapping[str, str]] = {
    "hub.name": "What the federation is called, on pages and in lines.",
    "hub.host": "The address to listen on.",
    "hub.port": "The port to listen on.",
    "hub.store": "The database's address, such as `postgresql+psycopg://user@host/paroma`; SQLite in the folder if not set.",
    "site.title": "What the hospital is called.",
    "site.host": "The address on which its own pages listen.",
    "site.port": "The port of its own pages.",
    "site.url": "The origin under which people reach the pages, if another.",
    "site.store": "The database's address; SQLite in the folder if not set.",
    "site.phone": "The number that patients see on their pages.",
    "site.hours": "When it is answered.",
}

PAGES: Final[Mapping[str, str]] = {
    "GET /static/{name}": "A file of the pages: style, script, pictures.",
    "GET /open/{code}": "Opens a single-use link: the first browser gets the session's cookie, the link is spent.",
    "POST /line/token": "A token of 60 seconds, bound to the key that asks (RFC 7523 assertion, RFC 9449 proof).",
    "POST /people/enrol": "Enrols one key with the code of a `paroma-login:` line.",
    "POST /people/browser-link": "A single-use link that opens a page of this program in a browser.",
    "GET /me": "The patient's first page.",
    "GET /me/uses": "Who used the patient's records, for what, and by what right.",
    "GET /me/withdraw": "Asks once more before a no.",
    "POST /me/withdraw": "The patient's no. Durable and in the log before the reply.",
    "POST /me/give": "The patient's yes, from now on.",
    "GET /me/receipts/{number}": "The receipt of a no: when, what was committed before it, where it stands in the site log.",
}

KINDS: Final[Mapping[str, str]] = {
    "federation attempt-opened": "An attempt at a question. Its hash is E, which every vote binds: participants with owners and "
    "keys, threshold t, m, c, digests of permit and request.",
    "federation app-brought": "Somebody brought the code of a Flower app; its digest is what a permit names.",
    "federation application-refused": "A hospital said no, by this rule.",
    "federation application-submitted": "A scientist applied.",
    "federation data-set-offered": "A site holds records of this data set.",
    "federation invitation-made": "The operator made a join line.",
    "federation member-joined": "A site joined, with its key and its log's key.",
    "federation member-left": "An operator ended a membership for good, and why.",
    "federation member-offline": "Nothing was heard of a site for so many seconds: no run waits for it.",
    "federation member-online": "A site that was offline is heard again.",
    "federation member-quarantined": "An operator isolated a site, and why: its requests are cut.",
    "federation member-released": "An operator let an isolated site in again, and why.",
    "federation officer-named": "A site names an officer, or ends one; the statement is signed by the site's key.",
    "federation permit-left": "The officer of one participant ended the permit there; the others go on without it.",
    "federation person-revoked": "An operator shut somebody off: key, sessions, tokens, runs.",
    "federation permit-issued": "Every participant's officer has signed.",
    "federation permit-revoked": "The permit ended before its time, and all its runs with it.",
    "federation permit-signed": "One officer signed.",
    "federation person-enrolled": "Somebody enrolled a key at the hub.",
    "federation question-answered": "A sum opened: over which uploads, and its digest.",
    "federation refused": "The hub's gate refused a request, by this policy.",
    "federation run-ended": "A run is over; the digest of its result if it has one.",
    "federation run-opened": "A run was opened under a permit.",
    "federation run-set-up": "The participants share secrets; the transcript binds them.",
    "federation suspected": "One of these sites sent something false.",
    "site allowed": "Policy allowed a use: which policies decided, and the digest of all that were in force.",
    "site answer-given": "The site handed out what removes the masks of one set.",
    "site application-refused": "Policy or the officer refused an application.",
    "site carried-out-anyway": "Policy would have refused a patient's no. It was carried out: mend the policy that is named.",
    "site contribution-made": "A contribution left the door: hash of the masked bytes, head of the budget, keyed hash of the rows.",
    "site cut-at-limit": "A contribution reached a limit and was cut: which, how high, how long its worker had run, and what the run had "
    "done here so far (questions answered, seconds computed, bytes sent).",
    "site policies-changed": "An officer ticked a house rule, took one out, or put a pack on trial, in force, or out; the digest of what is in "
    "force after it.",
    "federation policies-changed": "An operator put a pack on trial, in force, or out; the digest of what is in force after it.",
    "site given": "A patient said yes (a salted commitment, no name).",
    "site message-rejected": "A message of the hub broke a rule of the run and changed nothing.",
    "site not-counted": "A complete set without this site was shown: its contribution is in no sum of that attempt.",
    "site paused": "An officer paused every use.",
    "site permit-ended": "A permit was revoked or refused, by the hub's word or by this site's officer.",
    "site person-revoked": "Somebody of this site was shut off, and why.",
    "site erasure": "A patient was erased: a tag that names nobody without the erasure key, the number of the new root key, and on how many "
    "replicas the old one was destroyed.",
    "site permit-signed": "This site's officer signed.",
    "site permit-valid": "This site verified every signature of the permit itself.",
    "site person-enrolled": "Somebody enrolled a key at this site.",
    "site refused": "The site's gate refused a use or a request, by this policy.",
    "site resumed": "An officer let uses go on.",
    "site run-entered": "The site takes part in a run. `attestation` says on what proof of the other machines: `none`.",
    "site run-refused": "The site takes no part in a run, and why; the hub is told that, and not why.",
    "site run-left": "A run is over for this site; its secrets are gone.",
    "site sat-out": "The site gave no contribution to an attempt, and why.",
    "site vote-declined": "The site signs no further set that holds itself in this attempt.",
    "site vote-signed": "The site committed to a set: the moment of disclosure.",
    "site withdrawal": "A patient said no (a salted commitment, no name).",
}


class Anything:
    """A stand-in that has every attribute: routes are listed, never called."""

    def __getattr__(self, _name: str) -> "Anything":
        """Itself."""
        return self


# -- settings


def settings() -> str:
    """Every setting of both programs."""
    from paroma.hub.settings import HubSettings
    from paroma.site.settings import SiteSettings

    out = [
        "# Settings\n",
        (
            "A program reads its TOML file, then the environment; the environment wins. A relative path in the file is relative to the "
            "file's folder. An unknown key is an error. No secret is a setting: secrets lie in files.\n"
        ),
    ]
    for program, kind, file in (("hub", HubSettings, "hub.toml"), ("site", SiteSettings, "site.toml")):
        out.append(f"## The {program}: `{file}` in its folder\n")
        out += _settings_of(program, kind)
    out += [
        "## The command\n",
        _table(
            ("variable", "what it sets"),
            [
                ("`PAROMA_HOME`", "Where profiles (keys and logins of people) lie."),
                ("`PAROMA_PROFILE`", "Which profile a command speaks as, where `--profile` is not given."),
                ("`HTTPS_PROXY`", "The proxy through which a site and a person's command reach the hub."),
                ("`PAROMA_DATA`", "For tests only: the folder of real data and published vectors."),
            ],
        ),
    ]
    return "\n".join(out)


def _settings_of(program: str, kind: type[Any]) -> Iterator[str]:
    from paroma.kernel import settings as kernel_settings

    forms = dict(kernel_settings.names(kind, prefix=f"PAROMA_{program.upper()}_"))
    rows = list(_rows_of(program, kind, forms, f"PAROMA_{program.upper()}_", ""))
    if len(rows) != len(forms):
        raise SystemExit(f"the {program} reads {len(forms)} settings and {len(rows)} are described")
    yield _table(("key", "variable", "form", "default", "what it sets"), rows)


def _rows_of(
    program: str, kind: type[Any], forms: Mapping[str, str], prefix: str, path: str
) -> Iterator[tuple[str, ...]]:
    """A row for each setting of `kind`; those of a table within it under its name, as in the file."""
    told = _told(inspect.getdoc(kind) or "", [f.name for f in dataclasses.fields(kind)])
    kinds = get_type_hints(kind)
    for field in dataclasses.fields(kind):
        key, variable = f"{path}{field.name}", f"{prefix}{field.name.upper()}"
        if dataclasses.is_dataclass(kinds[field.name]):
            yield from _rows_of(program, kinds[field.name], forms, f"{variable}_", f"{key}.")
            continue
        what = told.get(field.name) or SETTINGS.get(f"{program}.{key}")
        if what is None:
            raise SystemExit(f"the setting `{key}` of the {program} has no sentence: write one")
        default = "required" if field.default is dataclasses.MISSING else f"`{_literal(field.default)}`"
        yield f"`{key}`", f"`{variable}`", forms[variable], default, what


def _literal(value: object) -> str:
    return "not set" if value in {None, ""} else "none" if value == () else str(value)


def _told(doc: str, names: list[str]) -> dict[str, str]:
    """The sentences `name: what it is.` in a docstring."""
    one_line = " ".join(doc.split())
    found = list(re.finditer(rf"(?<![\w`])((?:{'|'.join(names)})(?:, (?:{'|'.join(names)}))*): ", one_line))
    out = {}
    for at, match in enumerate(found):
        end = found[at + 1].start() if at + 1 < len(found) else len(one_line)
        text = one_line[match.end() : end].strip()
        for name in match.group(1).split(", "):
            out[name] = text[:1].upper() + text[1:]
    return out


# -- routes


def routes() -> str:
    """Every route of both programs."""
    from paroma.hub.app import make_app as make_hub
    from paroma.site.app import make_app as make_site

    out = [
        "# Routes\n",
        (
            "Bodies are JSON, replies too, unless a page, a file of the log or the line (msgpack) is meant. Errors are "
            "`application/problem+json` (RFC 9457): `title` is the [error](errors.md), `detail` says what is the case, `do` what to do. "
            "Every route but the first contact, pages and static files wants a token with a proof of the caller's key (RFC 9449). "
            "The gate decides each by [policy](policies.md).\n"
        ),
    ]
    for title, app in (
        ("At the hub", make_hub(Anything())),  # type: ignore[arg-type]  # never called
        ("At a site", make_site(Anything())),  # type: ignore[arg-type]  # never called
    ):
        out.append(f"## {title}\n")
        rows = []
        for route in app._app.routes:  # type: ignore[attr-defined]  # noqa: SLF001  # what `Guarded` holds
            methods = sorted((route.methods or set()) - {"HEAD"})
            rows += [(f"`{method}`", f"`{route.path}`", _route_says(method, route)) for method in methods]
        out.append(_table(("", "path", "what it does"), rows))
    return "\n".join(out)


def _route_says(method: str, route: Route) -> str:
    name = f"{method} {route.path}"
    if name in PAGES:
        return PAGES[name]
    doc = inspect.getdoc(route.endpoint) or ""
    if not doc or re.fullmatch(r"(GET|POST|PUT) \S+", doc):
        raise SystemExit(f"the route `{name}` has no sentence: write one")
    return " ".join(doc.split("\n\n")[0].split())


# -- log entries


def entries() -> str:
    """Every kind of entry in both logs."""
    found: dict[str, set[str]] = {}
    for program, log in (("hub", "federation"), ("site", "site")):
        for file in sorted((SOURCE / program).rglob("*.py")):
            for kind, facts in _written(file):
                found.setdefault(f"{log} {kind}", set()).update(facts)
    from paroma.learn.runs.messages import Opening

    found["federation attempt-opened"] = set(Opening.__struct_fields__)
    if missing := sorted(set(found) - set(KINDS)):
        raise SystemExit(f"kinds of entries without a sentence: {', '.join(missing)}")
    out = [
        "# Log entries\n",
        (
            "An entry is canonical JSON (RFC 8785) with `kind`, `at` (seconds since 1970, by its writer's clock) and facts. No entry holds "
            "a patient: `seal` refuses what looks like one, and what a patient does stands there as a salted commitment.\n"
        ),
    ]
    for log, title in (("federation", "The federation log, at the hub"), ("site", "A site's log, at the hospital")):
        rows = [
            (f"`{name.split()[1]}`", KINDS[name], ", ".join(f"`{fact}`" for fact in sorted(found[name])))
            for name in sorted(found)
            if name.startswith(log + " ")
        ]
        out += [f"## {title}\n", _table(("kind", "what it says", "facts"), rows)]
    return "\n".join(out)


def _written(file: Path) -> Iterator[tuple[str, set[str]]]:
    tree = ast.parse(file.read_text())
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Attribute) or node.func.attr != "write":
            continue
        if not ast.unparse(node.func.value).endswith(("log", "journal")) or len(node.args) != 2:  # tx, kind
            continue
        facts = {keyword.arg for keyword in node.keywords if keyword.arg}
        spread = {
            keyword.value.id for keyword in node.keywords if isinstance(keyword.value, ast.Name) and not keyword.arg
        }
        for name in spread:
            facts |= _keys_of(tree, name)
        kind = node.args[1]
        for one in (kind.body, kind.orelse) if isinstance(kind, ast.IfExp) else (kind,):
            if not isinstance(one, ast.Constant):
                raise SystemExit(f"{file}: an entry whose kind is not written out")
            yield str(one.value), facts


def _keys_of(tree: ast.Module, name: str) -> set[str]:
    """The keys that a file gives to the dict of this name."""
    out = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.AnnAssign) and isinstance(node.value, ast.Dict) and ast.unparse(node.target) == name:
            out |= {str(key.value) for key in node.value.keys if isinstance(key, ast.Constant)}
        elif isinstance(node, ast.Assign) and ast.unparse(node.targets[0]).startswith(f"{name}["):
            out.add(ast.literal_eval(ast.unparse(node.targets[0])[len(name) + 1 : -1]))
    return out


# -- policies


def policies() -> str:
    """Every policy, with why and what would change it."""
    from paroma.trust.policy import house, packs

    out = [
        "# Policies\n",
        (
            "Every request is decided by Cedar over typed facts. Nothing is allowed unless a `permit` allows it; a `forbid` always wins; an "
            "error in any of them, or no decision, is a refusal. A refusal names the policy by the id below, and the fact that would change "
            "it. Facts in braces are filled in.\n"
        ),
    ]
    for name in packs.RELEASED:
        pack = packs.released(name)
        rows = [
            (
                f"`{rule.id}`",
                "limit" if rule.limit else rule.effect,
                rule.notes["because"],
                rule.notes["obliges"] if rule.limit else rule.notes["to_change"],
            )
            for rule in pack.rules
        ]
        out += [f"## `{name}`: {pack.meta.title}\n", pack.meta.says + "\n"]
        out += [f"Source: {'; '.join(pack.meta.sources)}.\n"] if pack.meta.sources else []
        out.append(_table(("id", "", "because", "what would change a no, or the limit"), rows))
    meta = packs.released("house").meta
    out += [f"## `house`: {meta.title}\n", meta.says + "\n"]
    ticks = [
        (
            f"`{' '.join((one.name, *(f'{p}=...' for p in one.parameters)))}`",
            one.says,
            "; ".join(p.asks for p in one.parameters.values()),
        )
        for one in house.sentences().values()
    ]
    out.append(_table(("rule", "says", "asks"), ticks))
    return "\n".join(out)


# -- coverage


def coverage() -> str:
    """Which action decides each route, message and job."""
    from paroma.hub import parts as hub
    from paroma.hub.app import make_app as make_hub
    from paroma.site import parts as site
    from paroma.site.app import make_app as make_site
    from paroma.trust.policy.facts import TYPES

    rows = tomllib.loads((HERE / "coverage.toml").read_text())
    found = {
        "hub.routes": _routes_of(make_hub(Anything())),  # type: ignore[arg-type]  # never called
        "site.routes": _routes_of(make_site(Anything())),  # type: ignore[arg-type]  # never called
        "hub.messages": {kind.__name__ for kind in get_args(hub.FromMember)},
        "site.messages": {kind.__name__ for kind in get_args(site.FromHub)},
        "hub.jobs": _jobs_of("hub"),
        "site.jobs": _jobs_of("site"),
    }
    used: set[str] = set()
    out = [
        "# What decides each route, message and job\n",
        (
            "Nothing happens in either program that no [policy](policies.md) looked at, or that is not said here with its reason. The "
            "table is checked against the programs, and the routes are called in tests: the action that stands here is the one "
            "that is decided.\n"
        ),
    ]
    titles = {"routes": "Routes", "messages": "Messages that come in", "jobs": "Jobs"}
    for place, there in found.items():
        program, what = place.split(".")
        listed: dict[str, str] = rows[program][what]
        if odd := sorted(set(listed) ^ there):
            raise SystemExit(f"coverage.toml, [{place}]: {', '.join(odd)} is there and not here, or here and not there")
        used |= set(listed.values()) & set(TYPES)
        at = "the hub" if program == "hub" else "a site"
        cells = [
            (f"`{name}`", *((f"`{said}`", "") if said in TYPES else ("", said)))
            for name, said in sorted(listed.items())
        ]
        out += [f"## {titles[what]} at {at}\n", _table(("", "decided by", "or why not"), cells)]
    if odd := sorted(set(rows["unused"]) ^ (set(TYPES) - used)):
        raise SystemExit(f"coverage.toml, [unused]: {', '.join(odd)} is used, or is not and has no reason")
    out += [
        "## Actions that nothing asks for yet\n",
        _table(("action", "why"), [(f"`{a}`", w) for a, w in rows["unused"].items()]),
    ]
    return "\n".join(out)


def _routes_of(app: Any) -> set[str]:
    """Method and path of every route."""
    return {f"{m} {r.path}" for r in app._app.routes for m in (r.methods or ()) if m != "HEAD"}  # noqa: SLF001


def _jobs_of(program: str) -> set[str]:
    """What a program starts as a task of its own."""
    found = set()
    for file in sorted((SOURCE / program).glob("*.py")):
        text = file.read_text()
        for match in re.finditer(r"create_task\((?:self\.)?([a-z_]+)\(|for job in \(([^:]+)\):\n +task = ", text):
            if match[1]:
                found.add(match[1])
            else:
                found |= set(re.findall(r"self\.([a-z_.]+)\(", match[2]))
    return found


# -- messages


def messages() -> str:
    """Every message between hub and site."""
    from paroma.hub import parts as hub
    from paroma.site import parts as site
    from paroma.trust.channel import heads, messages as line

    out = [
        "# Messages\n",
        (
            "Between a hub and its sites: msgpack over HTTPS, checked for size and depth before it is decoded. A member name that is not "
            "listed is refused. Each message has a number in its sender's order, is durable before it leaves, and has its effect once.\n"
        ),
    ]
    groups: tuple[tuple[str, tuple[type[Any], ...]], ...] = (
        ("The line: one request, one reply", (line.Exchange, line.Exchanged, line.Envelope, line.Refusal)),
        ("Heads of the logs, in every request and reply", (heads.SiteHeads, heads.HubHeads)),
        ("From a site to the hub", get_args(hub.FromMember)),
        ("From the hub to a site", get_args(site.FromHub)),
    )
    for title, kinds in groups:
        out.append(f"## {title}\n")
        for kind in kinds:
            tag = kind.__struct_config__.tag
            out.append(f"### {kind.__name__}\n")
            if tag is not None:
                out.append(f"Tag `{tag}`.\n")
            out.append(_prose(kind) + "\n")
            rows = [
                (f"`{field.name}`", f"`{_form(kind.__annotations__[field.name])}`")
                for field in msgspec.structs.fields(kind)
            ]
            out.append(_table(("field", "form"), rows))
    return "\n".join(out)


def _form(kind: Any) -> str:  # an annotation
    if isinstance(kind, str):
        return kind
    name = getattr(kind, "__supertype__", None)
    if name is not None:
        return str(kind.__name__)
    text = inspect.formatannotation(kind)
    return re.sub(r"\b(?:paroma|typing)\.(?:\w+\.)*", "", text)


# -- commands


def commands() -> str:
    """Every command's own help."""
    import click
    from typer.main import get_command

    from paroma.cli import start

    os.environ["COLUMNS"] = "80"  # the width of help texts
    out = [
        "# Commands\n",
        (
            "What `paroma ... --help` prints. Every command takes `--json`: one object on stdout, progress on stderr; the exit status is 0, "
            "1 for an error, 2 for wrong usage.\n"
        ),
        _help([]),
    ]
    for name, (_what, load) in start.GROUPS.items():
        out += [f"## paroma {name}\n", _help([name])]
        command = get_command(load())
        if isinstance(command, click.Group):
            for inner, made in command.commands.items():
                out += [f"### paroma {name} {inner}\n", _help([name, inner])]
                for third in made.commands if isinstance(made, click.Group) else ():
                    out += [f"#### paroma {name} {inner} {third}\n", _help([name, inner, third])]
    return "\n".join(out)


def _help(arguments: list[str]) -> str:
    from paroma.cli import start

    shown = io.StringIO()
    with contextlib.redirect_stdout(shown):
        start.run([*arguments, "--help"])
    lines = [line.rstrip() for line in shown.getvalue().strip().splitlines()]
    return "```text\n" + "\n".join(lines) + "\n```\n"


# -- errors


def errors() -> str:
    """Every error that is told to somebody, by room."""
    out = [
        "# Errors\n",
        (
            "An error is a type, a sentence that says what is the case, and one that says what to do. Its name is the `title` in a reply. "
            "By what it derives from: *BadInput*: what was sent is wrong (400); *Refused*: it is not allowed (403); *Unavailable*: try "
            "again later (503).\n"
        ),
    ]
    bases = {"ParomaError": "", "BadInput": "BadInput", "Refused": "Refused", "Unavailable": "Unavailable"}
    known: dict[str, str] = dict(bases)
    parsed = [(file, ast.parse(file.read_text())) for file in sorted(SOURCE.rglob("*.py"))]
    classes = [(file, node) for file, tree in parsed for node in ast.walk(tree) if isinstance(node, ast.ClassDef)]
    for _ in range(4):  # an error may derive from one in a file that comes later
        for _file, node in classes:
            for base in node.bases:
                if isinstance(base, ast.Name) and base.id in known and node.name not in known:
                    known[node.name] = known[base.id]
    rooms: dict[str, list[tuple[str, str, str]]] = {}
    for file, node in classes:
        if node.name in known and node.name not in bases and not node.name.startswith("_"):
            room = "/".join(file.relative_to(SOURCE).parts[:2]).removesuffix(".py")
            doc = " ".join((ast.get_docstring(node) or "").split("\n\n")[0].split())
            rooms.setdefault(room, []).append((f"`{node.name}`", known[node.name] or "an error of a program", doc))
    for room, rows in sorted(rooms.items()):
        out += [f"## {room}\n", _table(("error", "", "what is the case"), sorted(rows))]
    return "\n".join(out)


# -- writing


def _prose(kind: type[Any]) -> str:
    return "\n\n".join(" ".join(part.split()) for part in (inspect.getdoc(kind) or "").split("\n\n"))


def _table(head: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    lines = [head, tuple("---" for _ in head), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines) + "\n"


MAKERS: Final[Mapping[str, Callable[[], str]]] = {
    "settings": settings,
    "routes": routes,
    "log-entries": entries,
    "policies": policies,
    "coverage": coverage,
    "messages": messages,
    "commands": commands,
    "errors": errors,
}


def made(name: str) -> str:
    """One page, as it should be committed."""
    return MADE + "\n" + MAKERS[name]()


if __name__ == "__main__":
    importlib.invalidate_caches()
    for page in MAKERS:
        target = HERE / f"{page}.md"
        target.write_text(made(page))
        print(f"wrote {target.name}")
