"""The nine scenes. Each asserts what it shows and returns the sentence that says so, with the figures it has just seen.

A scene goes through the doors that everybody has: the command, the SDK with a person's own key, a patient's pages in a
browser. The only exceptions are the ones that a scene is about: kill -9 (6), and a hand in the hub's database (8).
"""

import json
import sqlite3
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from importlib.resources import as_file, files
from pathlib import Path
from typing import Final, TypeVar

from paroma.kernel.errors import ParomaError, Refused, Unavailable
from paroma.lab import heart
from paroma.lab.demo import federation
from paroma.lab.demo.federation import AUDITOR, HOSPITALS, SCIENTIST, Running
from paroma.lab.demo.pooled import FLAMBY, INPUTS, OUTCOME, Pooled
from paroma.lab.demo.show import Screen
from paroma.lab.patient import Browser, Receipt, rounds
from paroma.lab.processes import ProcessFailed, Programs, until
from paroma.learn.algorithms.query import Drawn, Fitted
from paroma.learn.disclosure import control
from paroma.learn.runs.report import RunReport
from paroma.sdk.connection import Connection
from paroma.sdk.officer import Officer
from paroma.sdk.results import Logistic, Performance, Statistics
from paroma.sdk.run import Run
from paroma.sdk.study import NotGranted, Study, privacy, upload_app
from paroma.trust.audit.entries import Entry, open_entry

T = TypeVar("T")
FORMULA: Final = f"{OUTCOME} ~ {' + '.join(INPUTS)}"
BENEFIT: Final = "Doctors learn which signs raise the risk of heart disease."
EPSILON: Final = 3.0
PRIVATE_STEPS: Final = 12
PRIVATE_QUESTIONS: Final = 18  # twelve rounds, and room for attempts that a withdrawal or a loss repeats
CLIPPING_NORM: Final = 1.2
SEED: Final = "heart-2026"
WITHDRAW_AFTER: Final = 2  # rounds answered when she says no: the third is under way
KILL_AFTER: Final = 3
FLOWER_ROUNDS: Final = 3  # as the app's own configuration says
RUN_SECONDS: Final = 120.0  # a hub waits a minute for the upload of a site that does not come back
COSIGN_SECONDS: Final = 30.0


class SceneFailed(ParomaError):
    """What a scene shows is not so."""

    def __init__(self, what: str) -> None:
        super().__init__(what, do="read the logs in the demo's folder")


@dataclass(slots=True)
class Stage:
    """What the scenes so far have left for the next ones."""

    folder: Path
    programs: Programs
    screen: Screen
    running: Running | None = None
    scientist: Connection | None = None
    study: str = ""
    run: str = ""
    closing: list[Callable[[], None]] = field(default_factory=list)
    pooled: Pooled | None = None
    databases: Mapping[str, str] = field(default_factory=dict)  # of programs that shall not use a SQLite file

    def all(self) -> Running:
        """The processes. Raises SceneFailed before scene 1."""
        return _there(self.running, "the federation")

    def lena(self) -> Connection:
        """The scientist, connected."""
        if self.scientist is None:
            self.scientist = Connection(self.all().talk(SCIENTIST))
            self.closing.append(self.scientist.close)
        return self.scientist

    def permitted(self) -> Study:
        """The study that scene 2 got a permit for. Raises SceneFailed before it."""
        if not self.study:
            raise SceneFailed("a study with a permit is missing")
        return self.lena().study(self.study)

    def rows(self) -> Pooled:
        """The pooled rows."""
        if self.pooled is None:
            self.pooled = Pooled()
        return self.pooled

    def close(self) -> None:
        """End all connections; processes are stopped by whoever started them."""
        while self.closing:
            self.closing.pop()()


def start_and_join(stage: Stage) -> str:
    """1: one hub and four sites, five processes over TLS; each site joins with one line."""
    stage.running = running = federation.prepare(stage.folder, stage.programs, stage.databases)
    running.start_hub()
    joined = federation.join_all(running)
    federation.enrol_all(running)
    lena = stage.lena()
    until(
        lambda: [m.status for m in lena.members()] == ["online"] * 4 and len(lena.data_sets()) == 1,
        seconds=20,
        sentence="not all four sites came online",
    )
    seen = [running.site_seen(hospital.key) for hospital in HOSPITALS]
    pids = stage.programs.pids()
    _require(len(set(pids)) == 5, "there are not five processes")
    _require(
        {m.site for m in lena.members()} == {one.site for one in joined.values()}, "other sites joined than should"
    )
    patients = sum(one.patients for one in seen)
    _require(patients == 920, f"{patients} patients were brought in, not 920")
    _require({one.attestation for one in seen} == {"none"}, "a site claims an attestation")
    return (
        f"1 hub and 4 hospitals run as 5 processes over TLS; each joined with one line and keeps its own of {patients} "
        "patients' records (attestation: none, allowed by name in one policy line)"
    )


def agree_on_a_permit(stage: Stage) -> str:
    """2: found by description, refused for a wrong purpose by one hospital, applied right, signed by four officers."""
    lena = stage.lena()
    found = [held for held in lena.data_sets() if "coronary angiography" in held.data_set.description]
    _require(len(found) == 1 and len(found[0].sites) == 4, "the data set is not found by its description")
    name = found[0].data_set.name
    wrong = lena.apply(
        "A device that reads ECGs", purpose="product-development", data_set=name, features=(*INPUTS, OUTCOME),
        algorithms=("logistic",), benefit=BENEFIT,
    )  # fmt: skip
    no = _raised(NotGranted, lambda: wrong.wait(seconds=20))
    _require("Zurich and Basel refuses" in no.message and "scientific-research" in no.do, f"the refusal says: {no}")
    study = _agreed(stage, "What raises the risk of heart disease", algorithms=("statistics", "logistic"), questions=80)
    stage.study, permit = study.id, study.standings[0].permit
    _require(study.state == "valid" and len(permit.participants) == 4, "the permit is not valid")
    return (
        f"found `{name}` by its description; {no.message.split(' (policy')[0]}: {no.do}; applied for "
        f"{permit.purpose}, 4 officers signed with their own keys, the permit is valid"
    )


def one_call_statistics(stage: Stage) -> str:
    """3: counts, means, variances of every feature in one call, beside the pooled rows."""
    found = _as(Statistics, stage.permitted().statistics(", ".join((*INPUTS, OUTCOME))).wait(seconds=RUN_SECONDS)).found
    pooled = stage.rows()
    _require(found.patients == len(pooled) == 740, f"{found.patients} patients, not 740")
    worst = 0.0
    cells = 0
    for one in found.features:
        _require(one.count == 740 and one.missing in {0, None}, f"`{one.feature}` counts {one.count}")
        if one.mean is not None and one.variance is not None:
            mean, variance = pooled.moments(one.feature)
            worst = max(worst, abs(one.mean / mean - 1), abs(one.variance / variance - 1))
        else:
            counts = pooled.counts(one.feature)
            for cell in one.cells:
                if cell.label in counts:
                    cells += 1
                    pooled_count = control.told(counts[cell.label], found.counts_to)
                    _require(cell.count == pooled_count, f"`{one.feature}` = {cell.label}: {cell.count}")
    _require(worst < 1e-9, f"a mean or variance differs by {worst:.1e}")
    _require(cells > 0, "no count was compared")
    age = next(one for one in found.features if one.feature == "age")
    mean, variance = pooled.moments("age")
    return (
        f"one call over {found.patients} patients: age {age.mean:.4f} (pooled {mean:.4f}), sd "
        f"{(age.variance or 0) ** 0.5:.4f} (pooled {variance**0.5:.4f}); {cells} counts equal to the nearest "
        f"{found.counts_to}, all moments within {worst:.0e}"
    )


def logistic_regression(stage: Stage) -> str:
    """4: rounds drawn live, coefficients equal to the pooled fit; AUROC and accuracy beside FLamby's table."""
    study, pooled = stage.permitted(), stage.rows()
    run = study.logistic(FORMULA)
    fitted = _as(Logistic, _watch(stage, run, "log loss")).fitted
    stage.run = run.id
    truth = pooled.fit()
    b = max(abs(a - t) for a, t in zip(fitted.scaled, truth.coefficients, strict=True))
    errors = max(abs(a - t) for a, t in zip(fitted.scaled_errors or (), truth.errors, strict=True))
    _require(fitted.converged and fitted.patients == 740, "the fit did not converge over 740 patients")
    _require(b < 1e-12 and errors < 1e-12, f"coefficients differ by {b:.1e}, errors by {errors:.1e}")
    judged, model = _judge(study)
    rows, accuracy, auroc = pooled.judge(model.scaled, _drawn(0.66, 1.0))
    told = control.told(rows, judged.judged.counts_to)
    _require(judged.judged.patients == told, f"{judged.judged.patients} test patients, pooled {rows}")
    _require(abs(judged.judged.accuracy - accuracy) < 1e-12, "accuracy is not the pooled one")
    _require(abs(judged.judged.auroc - auroc) <= judged.judged.auroc_within + 1e-12, "AUROC is not the pooled one")
    _require(judged.judged.auroc > 0.8, f"AUROC is {judged.judged.auroc:.3f}")
    stage.screen.detail(
        "FLamby Fed-Heart-Disease (published; its own split): accuracy, mean of sites | pooled test rows"
    )
    for name, mean, test in FLAMBY:
        stage.screen.detail(f"  {name:<22} {mean:.3f} | {test:.3f}")
    stage.screen.detail(
        f"  {'here, ridge 1':<22}       | {judged.judged.accuracy:.3f}   AUROC {judged.judged.auroc:.3f} "
        f"(a third drawn by a public hash: {rows} patients)"
    )
    return (
        f"{fitted.steps} rounds over {fitted.patients} patients equal statsmodels on the pooled rows: coefficients within "
        f"{b:.0e}, standard errors within {errors:.0e}; on drawn test rows accuracy {accuracy:.3f}, AUROC {auroc:.3f}"
    )


def withdrawal(stage: Stage) -> str:
    """5: the same at epsilon 3; Maria Novak withdraws in round 3, in her own browser."""
    running = stage.all()
    study = _agreed(
        stage,
        "Risk of heart disease, with noise",
        algorithms=("logistic",),
        questions=PRIVATE_QUESTIONS,
        epsilon=EPSILON,
    )
    with Browser(running.patient_link("cleveland", heart.MARIA)) as maria:
        maria.withdraw_form()
        run = study.logistic(FORMULA, steps=PRIVATE_STEPS)
        receipt: Receipt | None = None
        values: list[float] = []
        for report in run.reports(seconds=RUN_SECONDS):
            values = _draw(stage, report, "noisy gradient")
            if receipt is None and len(report.progress) >= WITHDRAW_AFTER:
                receipt = maria.withdraw()
        stage.screen.drawn("noisy gradient", values)
        fitted = _as(Logistic, run.result).fitted
        receipt = _there(receipt, "the receipt")
        uses = [use for use in maria.uses() if study.title in use]
    stage.run = run.id
    _require(receipt.seconds <= 1.0, f"her no was acknowledged after {receipt.seconds:.2f} s")
    _require(bool(receipt.counted) and " stay" in receipt.text, f"her receipt says: {receipt.text}")
    _require(len(uses) == 1, "her page does not show the study")
    _require(rounds(uses[0]) == receipt.counted, f"counted {rounds(uses[0])} in the end, receipt {receipt.counted}")
    _require(len(receipt.counted) < PRIVATE_STEPS, "every round had counted her")
    entries = _site_entries(running, "cleveland")
    mine = entries[receipt.entry]
    _require(mine.kind == "withdrawal", f"entry {receipt.entry} of her clinic's log is a `{mine.kind}`")
    later = _votes_after(entries, receipt.entry, run.id)
    _require(later > 0, "her site gave no vote after her no")
    spent = _there(fitted.spent, "the budget")
    _require(0 < spent.epsilon <= EPSILON, f"epsilon {spent.epsilon} was spent")
    return (
        f"epsilon {spent.epsilon:.2f} of {EPSILON:g} in {fitted.steps} rounds; Maria said no in round 3, acknowledged after "
        f"{1000 * receipt.seconds:.0f} ms; her receipt counts {len(receipt.counted)} rounds, and none of "
        f"the {later} votes that her clinic gave after that (withdrawal: entry {receipt.entry} of its log)"
    )


def kill_minus_nine(stage: Stage) -> str:
    """6: a site is killed with -9 in the middle of a run and comes back."""
    running = stage.all()
    study = _agreed(stage, "Risk of heart disease, again", algorithms=("logistic",), questions=30, epsilon=EPSILON)
    victim = running.sites["budapest"]
    run = study.logistic(FORMULA, steps=PRIVATE_STEPS)
    before = victim.pid
    back = 0.0
    for report in run.reports(seconds=RUN_SECONDS):
        if not back and len(report.progress) >= KILL_AFTER:
            began = time.monotonic()
            victim.kill()
            running.start_sites("budapest")
            back = time.monotonic() - began
    fitted = _as(Logistic, run.result).fitted
    _require(back > 0 and victim.pid != before, "nobody was killed")
    _require(fitted.steps == PRIVATE_STEPS, f"{fitted.steps} rounds were answered")
    until(
        lambda: running.site_seen("budapest").status == "online",
        seconds=20,
        sentence="Budapest did not come back online",
    )
    # Once more, so that the killed site contributes after its comeback: its newest debit then has a number to stand for.
    study.logistic(FORMULA, steps=1).wait(seconds=RUN_SECONDS)
    seen = running.site_seen("budapest")
    made = [e for e in _site_entries(running, "budapest") if e.kind == "contribution-made"]
    ours = [e for e in made if e.facts["run"] == run.id]
    _require(0 < len(ours) < len(made), "the killed site contributes no more")
    _require(made[-1].facts["run"] != run.id and made[-1].number > ours[-1].number, "it did not come back")
    _require(seen.budget == made[-1].facts["budget"], "the ledger's head is not the one in the site's log")
    entries = [e.facts["entry"] for e in made]
    _require(len(set(entries)) == len(entries), "a contribution was computed twice")
    spent = _there(fitted.spent, "the budget")
    return (
        f"Budapest (process {before}) was killed with -9 after round {KILL_AFTER} and was back in {back:.1f} s; all "
        f"{fitted.steps} rounds were answered; its ledger's head is that of its last contribution ({seen.budget[:12]}), "
        f"{len(ours)} debits in this run, none twice; epsilon {spent.epsilon:.2f}"
    )


def flower_app(stage: Stage) -> str:
    """7: a Flower app that knows nothing of us, under the same masks."""
    lena = stage.lena()
    with as_file(files("paroma.lab.demo") / "flower_app") as app:
        code = upload_app(lena.talk, app)
        study = _agreed(stage, "A Flower app", algorithms=("flower",), questions=20, code=code)
        run = study.flower(app, config={"num-features": len(INPUTS)})  # the outcome is the last column
        for report in run.reports(seconds=RUN_SECONDS):
            _draw(stage, report, "flower")
    last = run.refresh()
    _require(last.status == "finished", f"the app's run is {last.status}: {last.reason}")
    _require(len(last.progress) == FLOWER_ROUNDS, f"{len(last.progress)} rounds were answered, not {FLOWER_ROUNDS}")
    return (
        f"an unchanged Flower app (bundle {code[:12]}, FedAvg) ran {len(last.progress)} rounds over the hospitals under the "
        f"same masks and votes; its strategy saw {last.numbers} numbers a round, each a sum"
    )


def edited_log(stage: Stage) -> str:
    """8: one byte of the hub's log is edited, on a copy of the whole federation: a site notices, stops, and still takes a no."""
    running = stage.all()
    stage.close()
    stage.scientist = None
    running.stop_all()
    twins = Programs()
    try:
        twin = federation.copied(running, stage.folder / "copy", twins)
        number = _edit_one_byte(twin.folder / "hub" / "hub.db")
        began = time.monotonic()
        twin.start_hub()
        twin.start_sites("cleveland")
        until(
            lambda: bool(_seen(twin, "cleveland").federation_log.trouble),
            seconds=30,
            sentence="no site noticed the edit",
        )
        noticed = time.monotonic() - began
        trouble = _seen(twin, "cleveland").federation_log.trouble
        refusal = _resume_refused(twin)
        with Browser(twin.patient_link("cleveland", _somebody_else())) as patient:
            patient.withdraw_form()
            receipt = patient.withdraw()
        _require(receipt.seconds <= 1.0, f"a no was acknowledged after {receipt.seconds:.2f} s")
    finally:
        twins.stop()
        running.start_hub()
        running.start_sites()
    lena = stage.lena()
    until(lambda: [m.status for m in lena.members()] == ["online"] * 4, seconds=20, sentence="not all came back")
    return (
        f"one bit of entry {number} was edited in a copy of the hub's database: Cleveland noticed within {noticed:.1f} s "
        f"({trouble}) and refuses uses ({refusal}), a withdrawal was still taken in {1000 * receipt.seconds:.0f} ms"
    )


def verify_the_log(stage: Stage) -> str:
    """9: the auditor checks the whole log with one command."""
    said = json.loads(_once_cosigned(stage.all()))
    _require(said["holds"] is True, said["sentence"])
    _require(len(said["cosigned_by"]) >= 3, f"cosigned by {said['cosigned_by']}")
    return str(said["sentence"])


SCENES: Final[tuple[tuple[str, Callable[[Stage], str], tuple[int, ...]], ...]] = (
    ("start and join", start_and_join, ()),
    ("application, refusal, permit", agree_on_a_permit, (1,)),
    ("statistics in one call", one_call_statistics, (1, 2)),
    ("logistic regression", logistic_regression, (1, 2)),
    ("epsilon 3 and a withdrawal", withdrawal, (1, 2)),
    ("kill -9 and back", kill_minus_nine, (1, 2)),
    ("a Flower app", flower_app, (1, 2)),
    ("one byte of the log", edited_log, (1, 2)),
    ("audit verify", verify_the_log, (1, 2)),
)
"""Title, scene, and the scenes that it needs."""


def _agreed(
    stage: Stage,
    title: str,
    *,
    algorithms: tuple[str, ...],
    questions: int,
    epsilon: float | None = None,
    code: str | None = None,
) -> Study:
    """Apply for scientific research; each hospital's officer signs; the study with its valid permit."""
    running, lena = stage.all(), stage.lena()
    study = lena.apply(
        title,
        purpose="scientific-research",
        data_set="heart",
        features=(*INPUTS, OUTCOME),
        algorithms=algorithms,
        benefit=BENEFIT,
        questions=questions,
        privacy=None if epsilon is None else privacy(epsilon, questions=questions, clipping_norm=CLIPPING_NORM),
        code=code,
    )
    permit = study.standings[0].permit.id

    def sign(key: str) -> None:
        talk = running.talk(key)
        try:
            officer = Officer(talk)
            until(
                lambda: any(one.permit.id == permit for one in officer.requests()),
                seconds=20,
                sentence=f"{key} was not asked",
            )
            officer.sign(permit)
        finally:
            talk.close()

    federation.side_by_side(sign, list(running.sites))
    return study.wait(seconds=20)


def _judge(study: Study) -> tuple[Performance, Fitted]:
    """Train with ridge 1 on drawn rows, and judge on the others."""
    model = _as(Logistic, study.logistic(FORMULA, ridge=1.0, rows=_drawn(0.0, 0.66)).wait(seconds=RUN_SECONDS)).fitted
    judged = study.evaluate(model, FORMULA, rows=_drawn(0.66, 1.0)).wait(seconds=RUN_SECONDS)
    return _as(Performance, judged), model


def _drawn(low: float, high: float) -> Drawn:
    # FLamby's split follows the order of each hospital's file, which no record tells; a public hash of the values does not
    return Drawn(over=INPUTS, salt=SEED, low=low, high=high)


def _watch(stage: Stage, run: Run, title: str) -> object:
    values: list[float] = []
    for report in run.reports(seconds=RUN_SECONDS):
        values = _draw(stage, report, title)
    stage.screen.drawn(title, values)
    return run.result


def _draw(stage: Stage, report: RunReport, title: str) -> list[float]:
    values = [one.value for one in report.progress if one.value is not None]
    stage.screen.draw(title, values, of=report.steps)
    return values


def _site_entries(running: Running, key: str) -> list[Entry]:
    """A site's own log, as whoever stands at its machine can read it."""
    return [
        open_entry(entry, number) for number, entry in enumerate(_rows(running.site_folder(key) / "site.db", "site"))
    ]


def _rows(database: Path, log: str) -> list[bytes]:
    with closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True)) as opened:
        found = opened.execute("select entry from audit_entries where log = ? order by number", (log,)).fetchall()
    return [bytes(row[0]) for row in found]


def _votes_after(entries: Sequence[Entry], number: int, run: str) -> int:
    """First votes of the run that follow entry `number`."""
    voted = set()
    for entry in entries[number:]:
        if entry.kind == "vote-signed" and entry.facts["run"] == run:
            voted.add(entry.facts["entry"])
    return len(voted)


def _edit_one_byte(database: Path) -> int:
    """Change one bit of a permit's entry in a hub's database file, as somebody with a hand in it would; its number."""
    with closing(sqlite3.connect(database)) as opened:
        number, entry = opened.execute(
            "select number, entry from audit_entries where log = 'federation' and instr(entry, 'permit-issued') limit 1"
        ).fetchone()
        edited = bytearray(entry)
        edited[len(edited) // 2] ^= 1
        opened.execute(
            "update audit_entries set entry = ? where log = 'federation' and number = ?", (bytes(edited), number)
        )
        opened.commit()
    return int(number)


def _seen(running: Running, key: str) -> federation.SiteSeen:
    """The site as its officer sees it; waits until it answers."""
    for _ in range(100):
        try:
            return running.site_seen(key)
        except Unavailable:
            time.sleep(0.05)
    return running.site_seen(key)


def _resume_refused(running: Running) -> str:
    """The officer pauses (stopping is always possible) and wants to resume: refused while the log is not consistent."""
    talk = running.talk("cleveland")
    try:
        officer = Officer(talk)
        officer.pause()
        return _raised(Refused, officer.resume).message
    finally:
        talk.close()


def _somebody_else() -> str:
    return next(row.patient for row in heart.rows() if row.hospital == "cleveland" and row.patient != heart.MARIA)


def _once_cosigned(running: Running) -> str:
    """What `paroma audit verify` says; repeated as it advises while the newest head waits for its cosignatures."""
    ends = time.monotonic() + COSIGN_SECONDS
    while True:
        try:
            return running.command("audit", "verify", "--profile", AUDITOR, "--json")
        except ProcessFailed as problem:
            if "cosignatures" not in problem.message or time.monotonic() > ends:
                raise
            time.sleep(0.5)


def _there(value: T | None, name: str) -> T:
    if value is None:
        raise SceneFailed(f"{name} is missing")
    return value


def _as(kind: type[T], value: object) -> T:
    if not isinstance(value, kind):
        raise SceneFailed(f"a `{type(value).__name__}` came out")
    return value


def _require(holds: bool, otherwise: str) -> None:
    if not holds:
        raise SceneFailed(otherwise)


def _raised(kind: type[Refused], act: Callable[[], object]) -> Refused:
    try:
        act()
    except kind as error:
        return error
    raise SceneFailed("nobody refused")
