"""A hub without HTTP: answers the routes as a `Network`, with the real sign-in behind them."""

import asyncio
import json
import threading
import time
from types import MappingProxyType
from urllib.parse import parse_qs, urlsplit

import msgspec
import pytest

from paroma.data.catalogue.data_set import DataSet, Feature, FeaturePath
from paroma.kernel.clock import SystemClock
from paroma.kernel.errors import BadInput, Refused
from paroma.kernel.randomness import OsRandomness, SeededRandomness
from paroma.kernel.wire.network import HttpResponse
from paroma.learn.algorithms.query import Fitted, Judged, Query, Summary
from paroma.learn.runs.report import Progress, RunReport, SiteSeen
from paroma.sdk.connection import Connection
from paroma.sdk.profile import Profile
from paroma.sdk.talk import Talk
from paroma.trust.channel.authenticate import Unauthenticated, authenticate, prove, refused_proof
from paroma.trust.channel.messages import TOKEN_PATH
from paroma.trust.identity import tokens
from paroma.trust.identity.clients import Client, Issuer
from paroma.trust.identity.nonces import NonceNeeded, Nonces
from paroma.trust.keys.signing import HeldKey, PublicKey
from paroma.trust.permit.permit import Participant
from paroma.trust.permit.wish import SiteRefusal, Standing, Wish, permit_of

FITTED = Fitted(
    terms=("intercept", "age"),
    scaled=(-0.25, 1.5),
    raw=(-3.25, 0.0612345),
    scaled_errors=(0.1, 0.2),
    raw_errors=(0.51234, 0.0098765),
    log_likelihood=-250.5,
    patients=496,
    steps=6,
    converged=True,
    ridge=0.0,
)
SITES = ("Budapest", "Basel", "Cleveland", "Long Beach")


class Hub:
    """What the SDK asks of a hub, in memory. `requests` keeps what came in."""

    def __init__(self, origin):
        self.origin = origin
        self.requests = []
        self.seen = threading.Event()
        self.key = HeldKey.fresh(SeededRandomness(1, "hub"))
        self.clients = {}
        self.code = "the-code"
        self.enrolled = None
        self.standings = []
        self.reports = {}
        self.breaks = 0
        clock = SystemClock()
        self.nonces = Nonces(clock, OsRandomness())
        self.issuer = Issuer(self.key, origin, nonces=self.nonces, clock=clock, randomness=OsRandomness())
        self.verifier = tokens.Verifier(self.key.public, issuer=origin, audience=origin, epoch=0, clock=clock)
        path = FeaturePath(resource="Patient", element="gender")
        self.data_set = DataSet(
            id="dataset-heart00000000000",
            name="heart",
            title="Heart disease",
            description="",
            licence="CC BY 4.0",
            features=(Feature(name="age", title="Age", kind="number", path=path, low=20, high=90),),
        )

    def enrol(self, person, key, role="scientist"):
        self.clients[person] = Client(subject=person, role=role, site=None, key=key.public)

    async def send(self, request):
        self.requests.append(request)
        parts = urlsplit(request.url)
        assert request.url.startswith(self.origin)
        try:
            headers = dict(request.headers)
            if parts.path == TOKEN_PATH:
                return self._reply(200, self._token(request, headers))
            if parts.path == "/people/enrol":
                return self._enrol(request, headers)
            principal = authenticate(
                request.method,
                self.origin + parts.path,
                request.headers,
                verified=self.verifier,
                nonces=self.nonces,
                now=time.time(),
            )
            if self.breaks:
                self.breaks -= 1
                return self._reply(503, self._problem("the hub restarts", "repeat"))
            return await self._answer(request, parts, principal)
        except Unauthenticated as problem:
            return self._reply(401, self._problem(problem.message, problem.do), problem.headers())
        except BadInput as problem:
            return self._reply(400, self._problem(problem.message, problem.do))
        except Refused as problem:
            return self._reply(403, self._problem(problem.message, problem.do))

    def _token(self, request, headers):
        try:
            return self.issuer.grant(request.body, headers["DPoP"], url=request.url, find=self.clients.get, epoch=0)
        except NonceNeeded as problem:
            raise refused_proof(problem, self.nonces) from problem

    def _enrol(self, request, headers):
        try:
            jwk = json.loads(request.body)["jwk"]
            thumbprint = PublicKey.from_jwk(jwk).thumbprint
            prove(
                "POST",
                request.url,
                request.headers,
                nonces=self.nonces,
                now=time.time(),
            )
        except Unauthenticated as problem:
            return self._reply(401, self._problem(problem.message, problem.do), problem.headers())
        if json.loads(request.body)["code"] != self.code or self.enrolled not in {None, thumbprint}:
            return self._reply(403, self._problem("this link was used before", "ask for a new link"))
        self.enrolled = thumbprint
        found = {"person": "person-1", "name": "Ada", "role": "scientist", "site": None, "place": "Heart"}
        return self._reply(200, json.dumps(found).encode())

    async def _answer(self, request, parts, principal):
        where, asked = (request.method, parts.path), parse_qs(parts.query)
        if where == ("GET", "/api/data-sets"):
            return self._json([{"data_set": self.data_set, "sites": SITES}])
        if where == ("GET", "/api/applications"):
            return self._json(self.standings)
        if where == ("POST", "/api/applications"):
            return self._json(self._apply(msgspec.json.decode(request.body, type=Wish), principal), 201)
        if parts.path.startswith("/api/applications/"):
            if "wait" in asked:
                self.seen.set()
                await asyncio.sleep(0.01)
                self.grant() if self.standings[0].permit.purpose == "scientific-research" else self.refuse()
            return self._json(self.standings[0])
        if where == ("POST", "/api/runs"):
            body = msgspec.json.decode(request.body, type=dict)
            query = msgspec.convert(body["query"], Query)
            return self._json(self._open(body["permit"], query), 201)
        if parts.path.startswith("/api/runs/"):
            return self._json(self._next(parts.path.split("/")[3], asked))
        if where == ("GET", "/api/runs"):
            return self._json(list(self.reports.values()))
        if where == ("POST", "/people/browser-link"):
            return self._json({"url": f"{self.origin}/open/CODE?to={json.loads(request.body)['to']}"})
        return self._reply(404, self._problem("nothing is here", "look elsewhere"))

    def _apply(self, wish, principal):
        permit = permit_of(
            wish,
            permit=f"permit-{len(self.standings)}",
            study=wish.study or f"study-{len(self.standings)}",
            applicant=principal.subject,
            participants=tuple(Participant(site=f"site-{n}", owner=t) for n, t in enumerate(SITES)),
            now=time.time(),
        )
        made = Standing(permit=permit, state="submitted", asked_by="Ada", signed=(), waiting=SITES, refusals=())
        self.standings.insert(0, made)
        return made

    def grant(self):
        self.standings[0] = msgspec.structs.replace(self.standings[0], state="valid", signed=SITES, waiting=())

    def refuse(self):
        no = SiteRefusal(title="Basel", policy="purpose", because="marketing is forbidden", to_change="choose another")
        self.standings[0] = msgspec.structs.replace(self.standings[0], state="refused", refusals=(no,))

    def _open(self, permit, query):
        standing = next(one for one in self.standings if one.permit.id == permit)
        steps = 3 if type(query).__name__ == "Logistic" else 1
        made = RunReport(
            run=f"run-{len(self.reports)}", permit=permit, study=standing.permit.study, title=standing.permit.title,
            algorithm=type(query).__name__.lower(), query="num ~ age", status="running", reason="", opened=1.0e9,
            ended=None, revision=0, step=0, steps=steps, measure="mean log loss", progress=(), result=None, numbers=9,
            private=False, epsilon=None, delta=None, most_epsilon=None, least_owners=3,
            sites=tuple(SiteSeen(title=t, online=True) for t in SITES), story=(), proof=None,
        )  # fmt: skip
        self.reports[made.run] = made
        return made

    def _next(self, run, asked):
        now = self.reports[run]
        if "after" in asked and int(asked["after"][0]) == now.revision and now.ended is None:
            step = now.step + 1
            over = step == now.steps
            now = msgspec.structs.replace(
                now,
                revision=now.revision + 1,
                step=step,
                progress=(*now.progress, Progress(step=step, at=1.0e9 + step, value=1.0 / step)),
                ended=2.0e9 if over else None,
                status="finished" if over else "running",
                result=self.result(now) if over else None,
            )
            self.reports[run] = now
        return now

    def result(self, report):
        if report.algorithm == "evaluate":
            return Judged(patients=244, accuracy=0.8, auroc=0.875, auroc_within=0.0001)
        return Summary(patients=740, features=()) if report.algorithm == "statistics" else FITTED

    def _json(self, value, status=200):
        return self._reply(status, msgspec.json.encode(value))

    def _problem(self, sentence, do):
        return msgspec.json.encode({"title": "no", "detail": sentence, "do": do})

    def _reply(self, status, body, headers=()):
        return HttpResponse(status=status, headers=MappingProxyType(dict(headers)), body=body)


@pytest.fixture
def fitted():
    return FITTED


@pytest.fixture
def hub():
    return Hub("https://hub.example:8443")


@pytest.fixture
def here(hub):
    key = HeldKey.fresh(SeededRandomness(2, "scientist"))
    hub.enrol("person-1", key)
    profile = Profile(
        origin=hub.origin, authority=None, person="person-1", name="Ada", role="scientist", site=None, place="Heart"
    )
    with Connection(Talk(profile, key, hub, clock=SystemClock(), randomness=OsRandomness())) as connection:
        yield connection


@pytest.fixture
def asked():
    """The body of the last request to a path."""

    def body(hub, path):
        return json.loads(next(r.body for r in reversed(hub.requests) if urlsplit(r.url).path == path))

    return body
