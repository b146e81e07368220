"""Renders templates strictly: an undefined name is an error, every value is escaped.

Pages run under a policy that allows only the program's own files: no inline script, no inline style, no foreign address.
"""

from collections.abc import Mapping
from datetime import UTC, datetime, tzinfo
from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from jinja2 import Environment

SECURITY_HEADERS: Mapping[str, str] = {
    "content-security-policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
    "form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(), geolocation=(), microphone=()",
    "cache-control": "no-store",
}

STATIC_TYPES: Mapping[str, str] = {
    "designsystemet.css": "text/css; charset=utf-8",
    "tokens.css": "text/css; charset=utf-8",
    "paroma.css": "text/css; charset=utf-8",
    "htmx.js": "text/javascript; charset=utf-8",
    "live.js": "text/javascript; charset=utf-8",
    "mark.svg": "image/svg+xml",
}

_SPELLED = (
    "No", "One", "Two", "Three", "Four", "Five", "Six", "Seven", "Eight", "Nine", "Ten", "Eleven", "Twelve",
)  # fmt: skip


@cache
def environment() -> "Environment":
    """The one template environment; `kit/`, `portal/`, `console/` and `officer/` name the rooms that hold templates."""
    from jinja2 import Environment, PackageLoader, PrefixLoader, StrictUndefined  # a program starts without it

    made = Environment(
        loader=PrefixLoader(
            {
                "kit": PackageLoader("paroma.web.kit"),
                "portal": PackageLoader("paroma.web.portal"),
                "console": PackageLoader("paroma.web.console"),
                "officer": PackageLoader("paroma.web.officer"),
            }
        ),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters["day"] = day
    made.filters["clock"] = clock
    made.filters["clock12"] = clock12
    made.filters["iso"] = machine_time
    made.filters["spelled"] = spelled
    return made


def render(template: str, **values: object) -> str:
    """The page made from `template` (such as `portal/home.html`)."""
    return environment().get_template(template).render(**values)


@cache
def static_file(name: str) -> bytes:
    """The bytes of a static file named in STATIC_TYPES."""
    return files("paroma.web.kit").joinpath("static", name).read_bytes()


def day(at: float, zone: tzinfo = UTC) -> str:
    """`24 November 2026`: dates are written in full. zone: of the place where it is read."""
    moment = datetime.fromtimestamp(at, zone)
    return f"{moment.day} {moment:%B %Y}"


def clock(at: float) -> str:
    """`14:02:11`, where the order matters."""
    return f"{datetime.fromtimestamp(at, UTC):%H:%M:%S}"


def clock12(at: float, zone: tzinfo = UTC) -> str:
    """`2:02:11 pm`, for patients: the clock on their own wall. Only UTC, which hangs on no wall, is named."""
    moment = datetime.fromtimestamp(at, zone)
    return (
        f"{moment.hour % 12 or 12}:{moment:%M:%S} {'am' if moment.hour < 12 else 'pm'}{' UTC' if zone is UTC else ''}"
    )


def spelled(number: int) -> str:
    """`Three`: small numbers begin a sentence as words."""
    return _SPELLED[number] if number < len(_SPELLED) else str(number)


def lasted(seconds: float) -> str:
    """`8 days`: how long something has lasted, in one unit; under a minute is `less than a minute`."""
    for size, unit in ((86_400, "day"), (3_600, "hour"), (60, "minute")):
        if seconds >= (2 * size if unit != "minute" else size):
            count = int(seconds // size)
            return f"{count} {unit}{'' if count == 1 else 's'}"
    return "less than a minute"


def machine_time(at: float) -> str:
    """For the `datetime` attribute."""
    return datetime.fromtimestamp(at, UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
