"""The pages of a running demo, and the doors of the four people whom its screen plays."""

from dataclasses import dataclass

from paroma.lab import heart
from paroma.lab.demo.federation import AUDITOR, HOSPITALS, SCIENTIST, Running
from paroma.lab.four.gather import Look
from paroma.sdk.talk import Talk


@dataclass(frozen=True, slots=True)
class OurDoors:
    """Each of the four with their own key, or a link from the desk."""

    running: Running

    def patient_link(self) -> str:
        """A single-use link to Maria Novak's pages."""
        return self.running.patient_link("cleveland", heart.MARIA)

    def officer_talk(self) -> Talk:
        """Cleveland's officer at the site."""
        return self.running.talk("cleveland")

    def scientist_talk(self) -> Talk:
        """The scientist at the hub."""
        return self.running.talk(SCIENTIST)

    def auditor_talk(self) -> Talk:
        """The auditor at the hub."""
        return self.running.talk(AUDITOR)


def look(running: Running) -> Look:
    """The four people of this federation."""
    titles = [hospital.title for hospital in HOSPITALS]
    return Look(OurDoors(running), f"{', '.join(titles[:-1])} and {titles[-1]}")


def addresses(running: Running, four: str) -> list[tuple[str, str]]:
    """(what it is, address or command). four: address of the screen."""
    home = f"PAROMA_HOME={running.folder / 'people'}"
    return [
        ("four people, one study", four),
        ("the run's page (as the scientist)", f"{four}run"),
        ("Maria Novak's own pages (as the patient)", f"{four}maria"),
        ("her clinic, for its officer", f"{home} paroma site status --profile cleveland"),
        ("the log, for the auditor", f"{home} paroma audit verify --profile {AUDITOR}"),
    ]
