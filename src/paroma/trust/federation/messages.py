"""What a site tells the hub about its people, over the line."""

import msgspec


class OfficerNamed(msgspec.Struct, frozen=True, kw_only=True, tag="officer-named", forbid_unknown_fields=True):
    """A site names, or un-names, an officer: its signed statement (`members.enrolment`), for the federation log."""

    statement: bytes
