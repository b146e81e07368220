"""Settings of a program: a frozen dataclass, filled from a TOML file and the environment; the environment wins.

The field `poll_seconds` is the key `poll_seconds` in the file and the variable `PAROMA_POLL_SECONDS`. A field that is
itself a dataclass is a table in the file (`[store]`, key `url`) and a longer name in the environment
(`PAROMA_STORE_URL`). An unknown key is an error: a misspelt setting must not be silently left at its default. No
secret belongs here: secrets are handed over in files that these settings name.
"""

import tomllib
import types
from collections.abc import Callable, Iterator, Mapping
from dataclasses import MISSING, dataclass, fields, is_dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Final, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from paroma.kernel.errors import BadInput
from paroma.kernel.ids import printable

S = TypeVar("S")
MOST_BYTES: Final = 1 << 20
PREFIX: Final = "PAROMA_"
_FORMS: Final = {str: "a text", int: "a whole number", float: "a number", bool: "true or false", Path: "a path"}


class SettingInvalid(BadInput):
    """A setting cannot be read, is unknown, or is missing. The sentence names the file and key, or the variable."""


def load(cls: type[S], file: Path | None, environ: Mapping[str, str], *, prefix: str = PREFIX) -> S:
    """Settings of the dataclass `cls`. file: None, or a TOML file that must exist. Raises SettingInvalid.

    Field types: str, int, float, bool, Path, Literal of text, tuple[str, ...], tuple[Path, ...], any of these
    `| None`, and dataclasses of them.

    Variables that begin with `prefix` and name no setting are refused; others are not looked at. In a
    variable a bool is `true` or `false`, and a tuple is separated by commas. A relative Path in the file is relative
    to the file's folder.
    """
    variables = {name: value for name, value in environ.items() if name.startswith(prefix)}
    known = dict(_leaves(cls, prefix))
    for name in variables:
        if name not in known:
            raise SettingInvalid(f"the variable `{printable(name)}` names no setting", do=_instead(name, list(known)))
    return _fill(cls, _read(file), variables, _Place(file, "", prefix))


def names(cls: type[Any], *, prefix: str = PREFIX) -> tuple[tuple[str, str], ...]:
    """Every variable that `load` reads and the form that it expects, for the reference."""
    return tuple((name, _form(kind)) for name, kind in _leaves(cls, prefix))


def _read(file: Path | None) -> dict[str, Any]:
    if file is None:
        return {}
    try:
        data = file.read_bytes()
        if len(data) > MOST_BYTES:
            raise SettingInvalid(f"`{file}` is longer than {MOST_BYTES} bytes", do="name the right file")
        return tomllib.loads(data.decode("utf-8"))
    except OSError as problem:
        raise SettingInvalid(f"`{file}` cannot be read: {problem.strerror}", do="name a file that exists") from problem
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as problem:
        raise SettingInvalid(f"`{file}` is no TOML: {problem}", do="mend that line") from problem


@dataclass(frozen=True, slots=True)
class _Place:
    """Where a table of settings stands: in which file, below which keys, under which names in the environment."""

    file: Path | None
    path: str
    prefix: str

    def inside(self, name: str) -> "_Place":
        return _Place(self.file, f"{self.path}{name}.", f"{self.prefix}{name.upper()}_")


def _fill(cls: type[S], table: dict[str, Any], environ: Mapping[str, str], place: _Place) -> S:
    kinds = get_type_hints(cls)
    here = {field.name: field for field in fields(cls)}  # type: ignore[arg-type]  # `load` is handed dataclasses only
    for name in table:
        if name not in here:
            unknown = f"`{place.file}`: the key `{place.path}{printable(name)}` is unknown"
            raise SettingInvalid(unknown, do=_instead(name, list(here)))
    values: dict[str, Any] = {}
    for name, field in here.items():
        kind, key, variable = kinds[name], f"{place.path}{name}", f"{place.prefix}{name.upper()}"
        if is_dataclass(kind):
            inner = table.get(name, {})
            if not isinstance(inner, dict):
                raise SettingInvalid(
                    f"`{place.file}`: `{key}` is no table", do=f"write `[{key}]` and its keys below it"
                )
            values[name] = _fill(kind, inner, environ, place.inside(name))  # type: ignore[arg-type]
        elif variable in environ:
            value = _from_text(kind, environ[variable])
            values[name] = _checked(kind, value, f"the variable `{variable}`", Path())
        elif name in table:
            folder = (place.file or Path()).parent
            values[name] = _checked(kind, table[name], f"`{place.file}`: the key `{key}`", folder)
        elif field.default is MISSING and field.default_factory is MISSING:
            where = f" in `{place.file}`" if place.file else ""
            do = f"set `{key}`{where}, or `{variable}`, to {_form(kind)}"
            raise SettingInvalid(f"the setting `{key}` is missing", do=do)
    return cls(**values)


def _leaves(cls: type[Any], prefix: str) -> Iterator[tuple[str, Any]]:
    kinds = get_type_hints(cls)
    for field in fields(cls):
        kind, variable = kinds[field.name], f"{prefix}{field.name.upper()}"
        if is_dataclass(kind):
            yield from _leaves(kind, f"{variable}_")  # type: ignore[arg-type]  # a class, as annotations are
        else:
            yield variable, kind


class _Misfit(Exception):
    """A value does not have the form of its setting."""


def _checked(kind: Any, value: Any, where: str, folder: Path) -> Any:
    try:
        return _convert(kind, value, folder)
    except _Misfit:
        do = f"set it to {_form(kind)}"
        raise SettingInvalid(f"{where} is `{printable(str(value))}`", do=do) from None


def _convert(kind: Any, value: Any, folder: Path) -> Any:
    if _optional(kind):
        return _convert(_inner(kind), value, folder)
    if get_origin(kind) is Literal:
        fits = value in get_args(kind)
    elif get_origin(kind) is tuple:
        fits = isinstance(value, list)
        value = tuple(_convert(get_args(kind)[0], item, folder) for item in value) if fits else value
    elif kind is Path:
        fits = isinstance(value, str) and bool(value) and "\0" not in value
        value = folder / Path(value).expanduser() if fits else value
    elif kind is float:
        fits = isinstance(value, int | float) and not isinstance(value, bool) and value - value == 0  # finite
        value = float(value) if fits else value
    else:
        fits = type(value) is kind
    if not fits:
        raise _Misfit
    return value


def _from_text(kind: Any, text: str) -> Any:
    """`text` of a variable as the file would have held it, or as it is where it does not fit."""
    kind = _inner(kind) if _optional(kind) else kind
    readers: dict[Any, Callable[[str], Any]] = {
        int: int,
        float: float,
        bool: lambda word: {"true": True, "false": False}.get(word, word),
    }
    if get_origin(kind) is tuple:
        return [part.strip() for part in text.split(",") if part.strip()]
    try:
        return readers.get(kind, str)(text)
    except ValueError:
        return text


def _form(kind: Any) -> str:
    if _optional(kind):
        return _form(_inner(kind))
    if get_origin(kind) is Literal:
        return "one of " + ", ".join(f"`{word}`" for word in get_args(kind))
    if get_origin(kind) is tuple:
        return f"a list of {_FORMS[get_args(kind)[0]].split(maxsplit=1)[1]}s"
    return _FORMS[kind]


def _optional(kind: Any) -> bool:
    return get_origin(kind) in {Union, types.UnionType} and type(None) in get_args(kind)


def _inner(kind: Any) -> Any:
    (inner,) = (part for part in get_args(kind) if part is not type(None))
    return inner


def _instead(wrong: str, known: list[str]) -> str:
    near = get_close_matches(wrong, known, 1)
    return (
        f"did you mean `{near[0]}`?"
        if near
        else f"remove it; known are {', '.join(f'`{name}`' for name in sorted(known))}"
    )
