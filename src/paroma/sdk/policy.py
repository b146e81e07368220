"""The policies of a program, for whoever answers for them: an officer at their site, an operator at the hub."""

from paroma.sdk.talk import Talk
from paroma.trust.policy.said import (
    DecisionSaid,
    Differences,
    Explained,
    HouseChange,
    HouseSaid,
    InForce,
    Preview,
    Replayed,
    Staged,
)


class PolicyDesk:
    """A person's connection to the policies of their program."""

    def __init__(self, talk: Talk) -> None:
        self.talk = talk

    def in_force(self) -> InForce:
        """Packs in force and on trial."""
        return self.talk.get("/api/policies", InForce)

    def house(self) -> HouseSaid:
        """The house rules, and the sentences that may be ticked."""
        return self.talk.get("/api/policies/house", HouseSaid)

    def change_house(self, *, add: tuple[str, ...] = (), remove: tuple[str, ...] = ()) -> HouseSaid:
        """Tick house rules, or take some out. Raises RuleInvalid's sentence as BadInput."""
        return self.talk.post("/api/policies/house", HouseChange(add=add, remove=remove), HouseSaid)

    def decisions(self) -> tuple[DecisionSaid, ...]:
        """The newest decisions that are kept."""
        return self.talk.get("/api/policies/decisions", tuple[DecisionSaid, ...])

    def explain(self, decision: str) -> Explained:
        """Why a decision came out as it did. decision: its id, or the beginning of one."""
        return self.talk.get(f"/api/policies/decisions/{decision}", Explained)

    def explain_ask(self, content: dict[str, object]) -> Explained:
        """How a request would be decided."""
        return self.talk.post("/api/policies/explain", content, Explained)

    def replay(
        self,
        since: float,
        *,
        files: dict[str, str] | None = None,
        add: tuple[str, ...] = (),
        remove: tuple[str, ...] = (),
    ) -> Replayed:
        """What would flip since a time (unix s) with one more pack, or with other house rules."""
        asked = Preview(since=since, files=files, house=HouseChange(add=add, remove=remove))
        return self.talk.post("/api/policies/replay", asked, Replayed)

    def differences(self) -> Differences:
        """What the packs on trial would have decided otherwise."""
        return self.talk.get("/api/policies/differences", Differences)

    def stage(self, files: dict[str, str]) -> InForce:
        """Put a pack on trial."""
        return self.talk.post("/api/policies/packs", Staged(files=files), InForce)

    def activate(self, pack: str) -> InForce:
        """Put the pack on trial in force."""
        return self.talk.post(f"/api/policies/packs/{pack}/activate", {}, InForce)

    def retire(self, pack: str) -> InForce:
        """Take a pack out."""
        return self.talk.post(f"/api/policies/packs/{pack}/retire", {}, InForce)
