"""Charts as SVG text: one accent line, direct labels, a title and a description, and the same as a table beneath.

Two drawings each, wide and narrow, so that text stays 13 px on a phone. Values come in as numbers; nothing here rounds them.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil, exp, floor, log, log10

from markupsafe import Markup, escape


@dataclass(frozen=True, slots=True, kw_only=True)
class Curve:
    """A value by round: what has happened, and how many rounds are still to come."""

    title: str
    description: str
    unit: str
    values: tuple[float, ...]  # from round 1 on
    rounds: int  # in all, as far as one can know; the figure is wider where there are more values
    ident: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Effect:
    """One line of a forest plot: an odds ratio and its 95 % interval."""

    name: str
    ratio: float
    low: float
    high: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Forest:
    """Odds ratios one under the other, on a logarithmic axis."""

    title: str
    description: str
    effects: tuple[Effect, ...]
    ident: str


def curve(chart: Curve) -> Markup:
    """Both drawings of a curve."""
    return Markup("").join((_curve(chart, "only-wide", 640, 290, 6), _curve(chart, "only-narrow", 250, 250, 4)))


def small_curve(chart: Curve) -> Markup:
    """A curve for a card: the line, the rounds to come, and one label. 220 px wide, so that its text stays 13 px."""
    width, floor_, top = 220, 83, 22
    low, high = _span(chart.values)
    rounds = max(chart.rounds, len(chart.values), 2)
    points = [
        (6 + (width - 12) * i / (rounds - 1), 75 - (75 - top) * (v - low) / (high - low))
        for i, v in enumerate(chart.values)
    ]
    parts = [f'<path class="axis" d="M0 {floor_}H{width}"/>']
    if points:
        parts.append('<path class="line" d="M' + "L".join(f"{a:.1f} {b:.1f}" for a, b in points) + '"/>')
        parts += [
            f'<circle class="todo" cx="{6 + (width - 12) * i / (rounds - 1):.1f}" cy="75" r="2.5"/>'
            for i in range(len(points), rounds)
        ]
        a, b = points[-1]
        parts.append(f'<circle class="dot-now" cx="{a:.1f}" cy="{b:.1f}" r="5"/>')
        late = a > width / 2
        said = f"{_short(chart.values[-1])} in round {len(points)}"
        parts.append(_text(width if late else a + 10, 13 if late else b - 8, said, "end" if late else "start", "say"))
    return _svg("small-chart", width, 86, f"{chart.ident}-small", chart.title, chart.description, parts)


def _curve(chart: Curve, shown: str, width: int, height: int, ticks: int) -> Markup:
    left, right, top, bottom = 48, width - 14, 18, height - 40
    low, high = _span(chart.values)
    rounds = max(chart.rounds, len(chart.values), 2)

    def x(round_: float) -> float:
        return left + (right - left) * (round_ - 1) / (rounds - 1)

    def y(value: float) -> float:
        return bottom - (bottom - top) * (value - low) / (high - low)

    parts = [
        _text(left - 8, y(v) + 4, f"{v:g}", "end") + f'<path class="gridline" d="M{left} {y(v):.1f}H{right}"/>'
        for v in _round_values(low, high)
    ]
    parts += [_text(x(r), bottom + 20, str(r), "middle") for r in _whole(rounds, ticks)]
    parts.append(f'<path class="axis" d="M{left} {bottom}H{right}"/>')
    parts.append(_text((left + right) / 2, height - 4, "round", "middle"))
    points = [(x(i), y(v)) for i, v in enumerate(chart.values, 1)]
    if points:
        parts.append('<path class="line" d="M' + "L".join(f"{a:.1f} {b:.1f}" for a, b in points) + '"/>')
        parts += [f'<circle class="dot" cx="{a:.1f}" cy="{b:.1f}" r="4"/>' for a, b in points[:-1]]
        a, b = points[-1]
        parts.append(f'<circle class="dot-now" cx="{a:.1f}" cy="{b:.1f}" r="5.5"/>')
        said = f"{_short(chart.values[-1])} in round {len(points)}"
        late = a > (left + right) / 2
        falls = b >= sum(v for _, v in points) / len(points)  # then the line comes from above, and there is room below
        parts.append(
            _text(a + 5 if late else a - 5, b + 24 if falls else b - 14, said, "end" if late else "start", "say")
        )
    return _svg(shown, width, height, f"{chart.ident}-{shown}", chart.title, chart.description, parts)


def forest(chart: Forest) -> Markup:
    """Both drawings of a forest plot."""
    return Markup("").join((_forest(chart, "only-wide", 520), _forest(chart, "only-narrow", 250)))


def _forest(chart: Forest, shown: str, width: int) -> Markup:
    narrow = width < 400
    row, top = (44, 8) if narrow else (34, 8)
    left, right = (8, width - 8) if narrow else (190, width - 130)
    height = top + row * len(chart.effects) + 44
    ends = [log(v) for e in chart.effects for v in (e.low, e.high)] or [0.0]
    low, high = min(*ends, log(0.5)), max(*ends, log(2.0))

    def x(ratio: float) -> float:
        return left + (right - left) * (log(ratio) - low) / (high - low)

    base = height - 38
    marks = [m for m in (0.1, 0.25, 0.5, 1, 2, 4, 8, 16, 32) if exp(low) <= m <= exp(high)]
    parts = [
        f'<path class="{"axis" if m == 1 else "gridline"}" d="M{x(m):.1f} {top}V{base}"/>'
        + _text(x(m), base + 18, f"{m:g}", "middle")
        for m in marks
    ]
    parts.append(_text((left + right) / 2, height - 3, "odds ratio, 95 % interval", "middle"))
    for i, effect in enumerate(chart.effects):
        line = top + row * i + (34 if narrow else 20)
        parts.append(_text(0, line - 14 if narrow else line + 4, effect.name, "start"))
        parts.append(f'<path class="line" d="M{x(effect.low):.1f} {line}H{x(effect.high):.1f}"/>')
        parts.append(f'<circle class="dot" cx="{x(effect.ratio):.1f}" cy="{line}" r="5.5"/>')
        said = f"{effect.ratio:.2f}" if narrow else f"{effect.ratio:.2f} ({effect.low:.2f}-{effect.high:.2f})"
        parts.append(_text(width, line - 14 if narrow else line + 4, said, "end", "say"))
    return _svg(shown, width, height, f"{chart.ident}-{shown}", chart.title, chart.description, parts)


def strip(*, spent: float, held: float, most: float, title: str, ident: str) -> Markup:
    """How much of a budget is spent, how much is held for what is to come."""
    scale = 300 / most if most > 0 else 0.0
    spent_, held_ = min(spent * scale, 300), min((spent + held) * scale, 300)
    return Markup(  # noqa: S704  # what comes from outside was escaped
        f'<svg class="strip" viewBox="0 0 300 16" preserveAspectRatio="none" role="img" aria-labelledby="{escape(ident)}">'
        f'<title id="{escape(ident)}">{escape(title)}</title>'
        f'<rect class="bar" x="0" y="0" width="{spent_:.1f}" height="16"/>'
        f'<rect class="bar-held" x="{spent_:.1f}" y=".5" width="{max(held_ - spent_, 0):.1f}" height="15" '
        'vector-effect="non-scaling-stroke"/></svg>'
    )


def _svg(shown: str, width: int, height: int, ident: str, title: str, description: str, parts: Sequence[str]) -> Markup:
    ident = escape(ident)
    return Markup(  # noqa: S704  # what comes from outside was escaped
        f'<svg class="{shown}" viewBox="0 0 {width} {height}" role="img" aria-labelledby="{ident}-t {ident}-d">'
        f'<title id="{ident}-t">{escape(title)}</title><desc id="{ident}-d">{escape(description)}</desc>'
        + "".join(parts)
        + "</svg>"
    )


def _text(x: float, y: float, what: str, anchor: str, voice: str = "") -> str:
    named = f' class="{voice}"' if voice else ""
    return f'<text{named} x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(what)}</text>'


def _span(values: Sequence[float]) -> tuple[float, float]:
    if not values:
        return 0.0, 1.0
    low, high = min(values), max(values)
    room = (high - low) * 0.2 or abs(high) * 0.2 or 1.0  # the label of the last point fits in
    return low - room, high + room


def _round_values(low: float, high: float) -> list[float]:
    """Three to seven values between `low` and `high` that are easy to read: multiples of 1, 2 or 5 times a power of ten."""
    power = 10.0 ** floor(log10((high - low) / 4))
    step = next(power * m for m in (1, 2, 5, 10) if (high - low) / (power * m) <= 6)
    return [step * i for i in range(ceil(low / step), floor(high / step) + 1)]


def _whole(rounds: int, most: int) -> list[int]:
    step = max(1, -(-(rounds - 1) // most))
    return list(range(1, rounds + 1, step))


def _short(value: float) -> str:
    return f"{value:.3g}"
