"""Routes of the hub's policies: what is in force here, why something was decided, packs on trial."""

from sqlalchemy import Connection
from starlette.routing import Route

from paroma.hub.api.people import PeopleRoutes
from paroma.hub.parts import Hub
from paroma.web.kit.policy_desk import PolicyRoutes


def routes(hub: Hub, people: PeopleRoutes) -> list[Route]:
    """The routes. A change stands in the federation log, with the digest of what is in force after it."""

    def log(tx: Connection, what: str, name: str, by: str, policies: str) -> int:
        return hub.log.write(tx, "policies-changed", what=what, name=name, by=by, policies=policies)

    return PolicyRoutes(
        desk=hub.gate.desk,
        store=hub.store,
        clock=hub.ports.clock,
        allowed=people.allowed,
        log=log,
        site=False,
    ).routes()
