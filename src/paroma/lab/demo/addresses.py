"""Where the pages of a running demo are: links as each person would get them."""

from collections.abc import Iterator
from contextlib import contextmanager

from paroma.lab import heart
from paroma.lab.demo.federation import AUDITOR
from paroma.lab.demo.story import Stage


@contextmanager
def addresses(stage: Stage) -> Iterator[list[tuple[str, str]]]:
    """(what it is, address), as long as the caller stays inside."""
    running = stage.all()
    yield [
        ("the run, for the scientist (opens once)", stage.lena().link(f"/runs/{stage.run}" if stage.run else "/")),
        ("Maria Novak's own pages (open once)", running.patient_link("cleveland", heart.MARIA)),
        ("for its officer", f"paroma site status --profile cleveland   (PAROMA_HOME={running.folder / 'people'})"),
        ("for the auditor", f"paroma audit verify --profile {AUDITOR}"),
    ]
