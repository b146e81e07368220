"""Routes of the site's policies: what is in force here, why something was decided, the hospital's own sentences."""

from sqlalchemy import Connection
from starlette.routing import Route

from paroma.site.api.officer import OfficerRoutes
from paroma.site.parts import Site
from paroma.web.kit.policy_desk import PolicyRoutes


def routes(site: Site, officers: OfficerRoutes) -> list[Route]:
    """The routes. A change stands in the site log, with the digest of what is in force after it."""

    def log(tx: Connection, what: str, name: str, by: str, policies: str) -> int:
        return site.journal.write(tx, "policies-changed", what=what, name=name, by=by, policies=policies)

    return PolicyRoutes(
        desk=site.gate.desk,
        store=site.store,
        clock=site.ports.clock,
        allowed=officers.allowed,
        log=log,
        site=True,
    ).routes()
