"""`paroma desk`: what the reception of a hospital does for a patient who stands before it."""

from typing import Annotated

import typer

from paroma.cli import show
from paroma.cli.acting import officer
from paroma.cli.show import Json, ProfileName
from paroma.kernel.clock import iso

APP = show.app("At the desk of a hospital: let a patient in, or write down their no.")
Patient = Annotated[str, typer.Argument(help="The patient's id.")]


@APP.command()
def link(patient: Patient, profile: ProfileName = None, *, json: Json = False) -> None:
    """Print an address that opens a patient's pages: once, in one browser, within 15 minutes."""
    with officer(profile) as desk:
        url = desk.patient_link(patient)
    show.done({"url": url}, url, json=json)


@APP.command()
def withdraw(patient: Patient, profile: ProfileName = None, *, json: Json = False) -> None:
    """Write down a patient's no to every use. It is durable before this answers."""
    with officer(profile) as desk:
        done = desk.withdraw(patient)
        at = desk.talk.clock.now()
    text = (
        f"written down at {iso(at)}, within {done.seconds:.2f} s: no read uses them any more\n"
        f"receipt {done.number}, entry {done.entry} of the site log"
    )
    show.done(done, text, json=json)
