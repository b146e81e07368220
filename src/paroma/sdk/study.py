"""A study: its applications and permits, and what is asked under them."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

import msgspec

from paroma.kernel.errors import BadInput, Refused, Unavailable
from paroma.kernel.ids import DataSetId, StudyId
from paroma.learn.algorithms import query as queries
from paroma.learn.algorithms.query import Fitted, Query, Selection
from paroma.learn.dp import accountants
from paroma.learn.runs.report import RunReport
from paroma.sdk import formula as formulas
from paroma.sdk.results import Logistic
from paroma.sdk.run import Run
from paroma.sdk.talk import PARK_SECONDS, WAIT_SECONDS, Talk
from paroma.trust.permit.permit import OrganisationKind, Permit, Privacy
from paroma.trust.permit.wish import Standing, Wish

DELTA: Final = 1e-5
CLIPPING_NORM: Final = 1.0


class NoPermit(Refused):
    """The study has no valid permit for this."""


class NotGranted(Refused):
    """A site said no, or the permit was revoked."""


class StillAsked(Unavailable):
    """Officers have not answered yet."""


class _Code(msgspec.Struct, frozen=True):
    code: str


def privacy(epsilon: float, *, questions: int, delta: float = DELTA, clipping_norm: float = CLIPPING_NORM) -> Privacy:
    """A budget of (epsilon, delta) for a whole permit, its noise just large enough for so many questions."""
    return Privacy(
        epsilon=epsilon,
        delta=delta,
        noise_multiplier=accountants.noise_multiplier(epsilon, delta, questions),
        clipping_norm=clipping_norm,
        questions=questions,
    )


def submit(talk: Talk, wish: Wish) -> Standing:
    """Hand an application in. Raises Refused, BadInput, Unavailable."""
    return talk.post("/api/applications", wish, Standing)


def awaited(talk: Talk, standing: Standing, *, seconds: float | None = None) -> Standing:
    """The application once it is valid. seconds: how long to wait; None: as long as it takes.

    Raises NotGranted with the site's reason, StillAsked.
    """
    ends = None if seconds is None else talk.clock.monotonic() + seconds
    while standing.state == "submitted":
        left = PARK_SECONDS if ends is None else min(PARK_SECONDS, ends - talk.clock.monotonic())
        if left <= 0:
            raise StillAsked(
                f"permit `{standing.permit.id}` waits for {', '.join(standing.waiting) or 'its officers'}",
                do="wait again, or ask them",
            )
        asked = f"/api/applications/{standing.permit.id}?wait={left:.0f}&unless=submitted"
        standing = talk.get(asked, Standing, wait=WAIT_SECONDS + left)
    if standing.state != "valid":
        raise not_granted(standing)
    return standing


def not_granted(standing: Standing) -> NotGranted:
    """Why an application did not become a permit: the first site's reason, and what would pass."""
    if not standing.refusals:
        return NotGranted(f"permit `{standing.permit.id}` is {standing.state}", do="apply for a new permit")
    no = standing.refusals[0]
    return NotGranted(f"{no.title} refuses: {no.because} (policy `{no.policy}`)", do=no.to_change)


class Study:
    """One study of yours. `standings`: its applications, newest first, as last heard."""

    def __init__(self, talk: Talk, study: StudyId, standings: Sequence[Standing]) -> None:
        self.id = study
        self.standings = tuple(standings)
        self._talk = talk

    @property
    def title(self) -> str:
        """The title of its newest application."""
        return self.standings[0].permit.title

    @property
    def state(self) -> str:
        """The state of its newest application."""
        return self.standings[0].state

    def refresh(self) -> "Study":
        """What the hub says of it now."""
        found = self._talk.get("/api/applications", list[Standing])
        self.standings = tuple(one for one in found if one.permit.study == self.id) or self.standings
        return self

    def apply(
        self,
        *,
        purpose: str,
        features: Sequence[str],
        algorithms: Sequence[str],
        benefit: str,
        title: str | None = None,
        data_set: str | None = None,
        privacy: Privacy | None = None,
        code: str | None = None,
        days: float = 365.0,
        least_patients: int = 10,
        least_owners: int = 3,
        counts_to: int = 5,
        colluders: int = 0,
        dropouts: int = 1,
        questions: int = 40,
        organisation: str = "unknown",
        organisation_kind: OrganisationKind = "unknown",
        country: str = "unknown",
    ) -> "Study":
        """Apply for another permit within this study. Title and data set are those of the last application if not
        given. Raises Refused, BadInput, Unavailable.
        """
        last = self.standings[0].permit
        wish = Wish(
            title=title or last.title,
            purpose=purpose,
            data_set=DataSetId(data_set or last.data_set),
            features=tuple(features),
            algorithms=tuple(algorithms),
            benefit=benefit,
            study=self.id,
            code=code,
            privacy=privacy,
            days=days,
            least_patients=least_patients,
            least_owners=least_owners,
            counts_to=counts_to,
            colluders=colluders,
            dropouts=dropouts,
            questions=questions,
            organisation=organisation,
            organisation_kind=organisation_kind,
            country=country,
        )
        self.standings = (submit(self._talk, wish), *self.standings)
        return self

    def wait(self, *, seconds: float | None = None) -> "Study":
        """Wait until every officer has signed the newest application. Raises NotGranted, StillAsked."""
        self.standings = (awaited(self._talk, self.standings[0], seconds=seconds), *self.standings[1:])
        return self

    def permit(self, algorithm: str, permit: str | None = None) -> Permit:
        """The newest valid permit for `algorithm`, or the one of this id. Raises NoPermit, NotGranted."""
        for standing in self.refresh().standings:
            found = standing.permit
            if permit == found.id or (permit is None and standing.state == "valid" and algorithm in found.algorithms):
                return found
        newest = self.standings[0]
        if permit is None and newest.state == "refused":
            raise not_granted(newest)
        waits = f"wait for {', '.join(newest.waiting)}" if newest.state == "submitted" else "apply for one"
        raise NoPermit(f"study `{self.title}` has no valid permit for `{algorithm}`", do=waits)

    def statistics(self, features: str, *, bins: int = 10, rows: Selection = None, permit: str | None = None) -> Run:
        """Counts, means, deviations and histograms of `age, sex`. One question."""
        names = tuple(name.strip() for name in features.replace("+", ",").split(",") if name.strip())
        if not names:
            raise BadInput("no feature is named", do="name some: `age, sex`")
        asked = queries.Statistics(features=names, bins=bins, rows=rows)
        return self._run("statistics", asked, permit)

    def logistic(
        self, formula: str, *, ridge: float = 0.0, steps: int = 12, rows: Selection = None, permit: str | None = None
    ) -> Run:
        """Logistic regression of `num ~ age + sex`, or `num > 2 ~ age`. A question a round, `steps` at most."""
        read = formulas.parse(formula)
        asked = queries.Logistic(
            outcome=queries.Outcome(feature=read.outcome, above=read.above),
            features=read.features,
            ridge=ridge,
            steps=steps,
            rows=rows,
        )
        return self._run("logistic", asked, permit)

    def evaluate(
        self, model: Run | Logistic | Fitted, formula: str, *, rows: Selection = None, permit: str | None = None
    ) -> Run:
        """How well `model`, fitted with `formula`, tells the outcome of the patients in `rows`. One question."""
        read = formulas.parse(formula)
        asked = queries.Evaluate(
            outcome=queries.Outcome(feature=read.outcome, above=read.above),
            features=read.features,
            coefficients=_fitted(model).scaled,
            rows=rows,
        )
        return self._run("logistic", asked, permit)

    def flower(
        self,
        app: Path | str | bytes,
        *,
        config: Mapping[str, str | float | bool] | None = None,
        permit: str | None = None,
    ) -> Run:
        """Run a Flower app: the folder of an app, or a bundle's bytes. The permit names its digest. config: overrides of its own."""
        code = upload_app(self._talk, app)
        found = self.permit("flower", permit)
        if found.code != code:
            raise NoPermit(f"permit `{found.id}` is for another app than this one", do=f"apply with the code `{code}`")
        return open_run(self._talk, found.id, {"type": "flower", "code": code, "run_config": dict(config or {})})

    def runs(self) -> tuple[Run, ...]:
        """Its runs, newest first."""
        found = self._talk.get("/api/runs", list[RunReport])
        return tuple(Run(self._talk, one) for one in found if one.study == self.id)

    def _run(self, algorithm: str, asked: Query, permit: str | None) -> Run:
        return open_run(self._talk, self.permit(algorithm, permit).id, asked)

    def __repr__(self) -> str:
        return f"<study {self.title!r} ({self.id}): {self.state}>"


def open_run(talk: Talk, permit: str, asked: Query | dict[str, object]) -> Run:
    """Open a run under a permit. Raises Refused, BadInput, Unavailable."""
    return Run(talk, talk.post("/api/runs", {"permit": permit, "query": asked}, RunReport))


def upload_app(talk: Talk, app: Path | str | bytes) -> str:
    """Bring a Flower app to the hub; its digest, which a permit names. Raises FabInvalid, Refused."""
    from paroma.learn.flower import fab

    content = app if isinstance(app, bytes) else fab.build(Path(app))
    return talk.send_file("/api/bundles", content, _Code).code


def _fitted(model: Run | Logistic | Fitted) -> Fitted:
    found = model.wait() if isinstance(model, Run) else model
    if isinstance(found, Fitted):
        return found
    if isinstance(found, Logistic):
        return found.fitted
    raise BadInput("only a logistic regression can be evaluated", do="give the run of a `logistic`")
