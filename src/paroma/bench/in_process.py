"""Four sites' computation in one process: the real plan, worker, door, masks and sum; no network, no sandbox.

For figures about numbers, not about time.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from paroma.kernel.errors import Unavailable
from paroma.kernel.ids import DataSetId, PatientId, PermitId, PersonId, SiteId, StudyId
from paroma.kernel.randomness import SeededRandomness
from paroma.kernel.wire import framing
from paroma.learn.algorithms import plan as planning, worker
from paroma.learn.algorithms.plan import Plan
from paroma.learn.algorithms.query import Feature, Query, Result, Step
from paroma.learn.disclosure import door
from paroma.learn.disclosure.ledger import Kept
from paroma.learn.dp.mechanisms import DiscreteGaussian
from paroma.learn.secagg import masks, seeds, unmask
from paroma.trust.permit.permit import Participant, Permit


class _Memory:
    """The ledger's bytes, in memory."""

    def __init__(self) -> None:
        self._data: bytes | None = None

    def read(self) -> bytes | None:
        return self._data

    def swap(self, old: bytes | None, new: bytes) -> None:
        if old != self._data:
            raise Unavailable("the ledger was changed meanwhile", do="try again")
        self._data = new


@dataclass(frozen=True, slots=True, kw_only=True)
class _Site:
    name: SiteId
    table: memoryview
    live: memoryview
    patients: tuple[PatientId, ...]
    budget: Kept
    noise: DiscreteGaussian


class InProcess:
    """A federation over Arrow tables, one a site. The same seed gives the same masks."""

    def __init__(self, tables: Sequence[pa.Table], permit: Permit, *, seed: int = 0) -> None:
        self._permit = permit
        self._secret = SeededRandomness(seed, "secrets").take(32)
        self._asked = 0
        self._sites = [
            _Site(
                name=participant.site,
                table=memoryview(_stream(table)),
                live=memoryview(bytes(np.packbits(np.ones(table.num_rows, np.bool_), bitorder="little"))),
                patients=tuple(PatientId(f"patient-{place}-{row}") for row in range(table.num_rows)),
                budget=Kept(_Memory(), SeededRandomness(seed, f"ledger{place}")),
                noise=DiscreteGaussian(SeededRandomness(seed, f"noise{place}")),
            )
            for place, (participant, table) in enumerate(zip(permit.participants, tables, strict=True))
        ]

    def ask(self, query: Query, features: Sequence[Feature]) -> Result:
        """Every step of a question. Raises what plan, worker, door and `advance` raise."""
        plan = planning.plan(query, features, self._permit)
        step = planning.first(plan)
        while True:
            after = planning.advance(plan, step, self.total(plan, step))
            if not isinstance(after, Step):
                return after
            step = after

    def total(self, plan: Plan, step: Step) -> bytes:
        """The unmasked sum of one step, from the masked bytes of every site."""
        self._asked += 1
        entry = seeds.expand(self._secret, b"entry", str(self._asked).encode()).hex()
        layout = planning.layout(plan, step)
        own = {site.name: seeds.self_seed(self._root(site.name), entry) for site in self._sites}
        uploads = []
        for site in self._sites:
            pairs = {
                other.name: seeds.pair_seed(self._pair(site.name, other.name), entry)
                for other in self._sites
                if other is not site
            }
            put_on = masks.masker(layout, masks.masks_of(site.name, own[site.name], pairs))
            uploads.append(self._contribute(plan, step, site, entry, put_on))
        return unmask.total(layout, uploads, own, {})

    def _contribute(self, plan: Plan, step: Step, site: _Site, entry: str, put_on: door.Masks) -> bytes:
        request = planning.request(plan, step)
        reply = worker.compute(framing.pack(request), [site.table, site.live])
        question = planning.question(plan, step)
        update = worker.received(reply, request, site.patients, attempt=entry, question=question)
        masked = door.let_out(update, permit=self._permit, ledger=site.budget, noise=site.noise, masks=put_on)
        return masked.upload

    def _root(self, site: SiteId) -> bytes:
        return seeds.expand(self._secret, b"root", site.encode())

    def _pair(self, one: SiteId, other: SiteId) -> bytes:
        return seeds.expand(self._secret, b"pair", *(name.encode() for name in sorted((one, other))))


def permit(features: Sequence[str], *, sites: int, questions: int = 40) -> Permit:
    """A permit that holds statistics and logistic regression over `features`, without differential privacy."""
    return Permit(
        id=PermitId("permit-0000000000000000"),
        study=StudyId("study-0000000000000000"),
        title="Bench",
        purpose="scientific-research",
        applicant=PersonId("person-0000000000000000"),
        data_set=DataSetId("dataset-0000000000000000"),
        features=tuple(features),
        algorithms=("statistics", "logistic"),
        participants=tuple(
            Participant(site=SiteId(f"site-000000000000000{place}"), owner=f"owner {place}") for place in range(sites)
        ),
        least_patients=10,
        least_owners=3,
        colluders=0,
        dropouts=1,
        most_patients=4000,
        attempts=3,
        questions=questions,
        starts=0.0,
        ends=4e9,
    )


def _stream(table: pa.Table) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return bytes(sink.getvalue())
