"""`paroma run`: compute under a permit."""

from pathlib import Path
from typing import Annotated

import typer

from paroma.cli import show
from paroma.cli.show import Json, ProfileName
from paroma.kernel.clock import iso
from paroma.kernel.errors import BadInput
from paroma.learn.algorithms.query import Drawn, Marked, Selection
from paroma.sdk.connection import connect
from paroma.sdk.run import Run

APP = show.app("Compute under a permit, watch it, read what came out.")
StudyName = Annotated[str, typer.Option("--study", help="Title or id of the study.")]
PermitName = Annotated[str | None, typer.Option("--permit", help="Under this permit, not the newest that fits.")]
RunName = Annotated[str, typer.Argument(help="The run's id.")]
Rows = Annotated[
    str | None,
    typer.Option(
        help="Only some patients: `split=0`, or a public draw over some columns, `age,sex@salt:0:0.667`.",
    ),
]
NoWait = Annotated[bool, typer.Option("--no-wait", help="Open the run, and do not wait for it.")]


@APP.command()
def statistics(
    features: Annotated[str, typer.Argument(help="Features, with commas.")],
    *,
    study: StudyName,
    bins: Annotated[int, typer.Option(help="Cells of each histogram.")] = 10,
    rows: Rows = None,
    permit: PermitName = None,
    profile: ProfileName = None,
    no_wait: NoWait = False,
    json: Json = False,
) -> None:
    """Counts, means, deviations, histograms."""
    with connect(profile) as here:
        opened = here.study(study).statistics(features, bins=bins, rows=selection(rows), permit=permit)
        _follow(opened, wait=not no_wait, json=json)


@APP.command()
def logistic(
    formula: Annotated[str, typer.Argument(help="Such as `num ~ age + sex`, or `num > 2 ~ age`.")],
    *,
    study: StudyName,
    ridge: Annotated[float, typer.Option(help="Weight of the penalty; 0 is the plain maximum.")] = 0.0,
    steps: Annotated[int, typer.Option(help="Rounds at most.")] = 12,
    rows: Rows = None,
    permit: PermitName = None,
    profile: ProfileName = None,
    no_wait: NoWait = False,
    json: Json = False,
) -> None:
    """Logistic regression; its rounds are drawn as they are answered."""
    with connect(profile) as here:
        opened = here.study(study).logistic(formula, ridge=ridge, steps=steps, rows=selection(rows), permit=permit)
        _follow(opened, wait=not no_wait, json=json)


@APP.command()
def evaluate(
    model: Annotated[str, typer.Argument(help="Id of the run that fitted the model.")],
    formula: Annotated[str, typer.Argument(help="The formula that it was fitted with.")],
    *,
    study: StudyName,
    rows: Rows = None,
    permit: PermitName = None,
    profile: ProfileName = None,
    no_wait: NoWait = False,
    json: Json = False,
) -> None:
    """Accuracy and AUROC of a fitted model."""
    with connect(profile) as here:
        opened = here.study(study).evaluate(here.run(model), formula, rows=selection(rows), permit=permit)
        _follow(opened, wait=not no_wait, json=json)


@APP.command()
def flower(
    app: Annotated[Path, typer.Argument(help="Folder of the Flower app, or its bundle (.fab).")],
    *,
    study: StudyName,
    config: Annotated[list[str] | None, typer.Option(help="`name=value` of the app's run config.")] = None,
    permit: PermitName = None,
    profile: ProfileName = None,
    no_wait: NoWait = False,
    json: Json = False,
) -> None:
    """Run a Flower app, unchanged, under the same protection. The permit names its digest."""
    with connect(profile) as here:
        content = app.read_bytes() if app.is_file() else app
        opened = here.study(study).flower(content, permit=permit, config=_config(config or []))
        _follow(opened, wait=not no_wait, json=json)


@APP.command("list")
def list_(profile: ProfileName = None, *, json: Json = False) -> None:
    """The runs that you may see, newest first."""
    with connect(profile) as here:
        found = [run.report for run in here.runs()]
    rows = [(r.run, r.status, r.query, f"{r.step}", iso(r.opened)[:16], r.title) for r in found]
    text = show.table(("run", "status", "query", "round", "opened", "study"), rows, none="there is no run yet")
    show.done({"runs": found}, text, json=json)


@APP.command("show")
def show_(name: RunName, profile: ProfileName = None, *, json: Json = False) -> None:
    """One run: its story, its result, its place in the log."""
    with connect(profile) as here:
        _show(here.run(name), json=json)


@APP.command()
def watch(name: RunName, profile: ProfileName = None, *, json: Json = False) -> None:
    """Follow a run until it ends."""
    with connect(profile) as here:
        _follow(here.run(name), wait=True, json=json)


@APP.command()
def stop(name: RunName, profile: ProfileName = None, *, json: Json = False) -> None:
    """End a run before its time."""
    with connect(profile) as here:
        found = here.run(name)
        found.stop()
        _show(found, json=json)


@APP.command("open")
def open_(name: RunName, profile: ProfileName = None, *, json: Json = False) -> None:
    """Print an address that opens the run's page in a browser, once."""
    with connect(profile) as here:
        url = here.link(f"/runs/{here.run(name).id}")
    show.done({"url": url}, url, json=json)


def selection(text: str | None) -> Selection:
    """`split=0`, or `age,sex@salt:0:0.667`. Raises BadInput."""
    if text is None:
        return None
    try:
        if "@" in text:
            over, _, drawn = text.partition("@")
            salt, low, high = drawn.rsplit(":", 2)
            names = tuple(name.strip() for name in over.split(","))
            return Drawn(over=names, salt=salt, low=float(low), high=float(high))
        feature, equals, value = text.partition("=")
        if equals:
            return Marked(feature=feature.strip(), value=float(value))
    except ValueError:
        pass
    raise BadInput("these rows cannot be read", do="write `--rows feature=1`, or `--rows age,sex@salt:0:0.667`")


def _config(pairs: list[str]) -> dict[str, str | float | bool]:
    found: dict[str, str | float | bool] = {}
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if not equals:
            raise BadInput("a part of the config has no `=`", do="write `--config name=value`")
        found[name] = _scalar(value)
    return found


def _scalar(text: str) -> str | float | bool:
    if text in {"true", "false"}:
        return text == "true"
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text


def _follow(run: Run, *, wait: bool, json: bool) -> None:
    show.say(f"run {run.id}: {run.report.query}")
    if not wait:
        _show(run, json=json)
        return
    outcome = run.wait(say=show.Watching())
    run.cosigned()  # the last entry is a moment old
    value = {"run": run.id, "status": run.status, "result": outcome.to_dict(), "report": run.report}
    show.done(value, f"{outcome.summary()}\n\n{_where(run)}", json=json)


def _show(run: Run, *, json: bool) -> None:
    report = run.report
    budget = "" if report.epsilon is None else f"epsilon {report.epsilon:.4g} of {report.most_epsilon or 0:g} spent"
    blocks = [
        show.facts(
            [
                ("run", f"{report.run}, {report.status}" + (f": {report.reason}" if report.reason else "")),
                ("study", report.title),
                ("query", f"{report.algorithm}: {report.query}"),
                ("opened", iso(report.opened)),
                ("ended", iso(report.ended) if report.ended is not None else ""),
                ("rounds", f"{report.step} of {report.steps} at most"),
                ("sites", ", ".join(f"{s.title}{'' if s.online else ' (away)'}" for s in report.sites)),
                ("privacy", budget),
            ]
        ),
        "\n".join(f"{iso(one.at)[11:19]}  {one.what}  (entry {one.entry})" for one in report.story),
        run.result.summary() if report.result is not None else "",
        _where(run),
    ]
    value = {
        "run": run.id,
        "status": run.status,
        "result": run.result.to_dict() if report.result is not None else None,
        "report": report,
    }
    show.done(value, "\n\n".join(block for block in blocks if block), json=json)


def _where(run: Run) -> str:
    proof = run.report.proof
    page = f"page: paroma run open {run.id}"
    if proof is None:
        return page
    seen = (
        f"not cosigned by enough hospitals yet; look again: paroma run show {run.id}"
        if proof.cosigned is None
        else f"cosigned by {proof.cosigned} hospitals"
    )
    return f"log: entries {proof.first} to {proof.last}, {seen}\n{page}"
