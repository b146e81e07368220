"""Members, officers, invitations. Times are seconds since 1970. The same tables at the hub and at each site."""

from sqlalchemy import Column, Float, LargeBinary, MetaData, String, Table

METADATA = MetaData()

MEMBERS = Table(
    "federation_members",
    METADATA,
    Column("site", String(40), primary_key=True),
    Column("owner", String(120), nullable=False),
    Column("title", String(120), nullable=False),
    Column("thumbprint", String(43), nullable=False, unique=True),
    Column("jwk", String(400), nullable=False),  # canonical JSON
    Column("log_vkey", String(200), nullable=False),
    Column("status", String(20), nullable=False),
    Column("changed", Float(53), nullable=False),
)

OFFICERS = Table(
    "federation_officers",
    METADATA,
    Column("site", String(40), primary_key=True),
    Column("thumbprint", String(43), primary_key=True),
    Column("person", String(40), nullable=False),
    Column("name", String(120), nullable=False),
    Column("jwk", String(400), nullable=False),
    Column("at", Float(53), nullable=False),  # of the newest statement
    Column("ended", Float(53)),
    Column("statement", LargeBinary, nullable=False),  # as the site signed it, for whoever checks later
)

INVITATIONS = Table(
    "federation_invitations",
    METADATA,
    Column("hash", String(64), primary_key=True),  # SHA-256 of the code
    Column("owner", String(120)),  # fixed by whoever invites, or None
    Column("made", Float(53), nullable=False),
    Column("ends", Float(53), nullable=False),
    Column("withdrawn", Float(53)),
    Column("used", Float(53)),
    Column("site", String(40)),
    Column("thumbprint", String(43)),
)
