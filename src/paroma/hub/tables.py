"""The hub's own tables: what sites offer, proposals on their way to a permit, runs. Times are unix seconds."""

from sqlalchemy import BigInteger, Column, Float, Index, Integer, LargeBinary, MetaData, String, Table, Text

METADATA = MetaData()

OFFERS = Table(
    "hub_offers",
    METADATA,
    Column("site", String(40), primary_key=True),
    Column("data_set", String(64), primary_key=True),
    Column("description", LargeBinary, nullable=False),
    Column("at", Float(53), nullable=False),
)
"""Descriptions of data sets, by the site that holds records of them."""

PERMITS = Table(
    "hub_permits",
    METADATA,
    Column("permit", String(64), primary_key=True),
    Column("study", String(64), nullable=False),
    Column("applicant", String(64), nullable=False),
    Column("asked_by", String(240), nullable=False),
    Column("content", LargeBinary, nullable=False),  # msgpack of SignedPermit, with the signatures so far
    Column("benefit", Text, nullable=False),
    Column("state", String(20), nullable=False),  # submitted, valid, refused, revoked
    Column("said", Text, nullable=False),  # why it was refused, and what would pass: JSON
    Column("at", Float(53), nullable=False),
    Column("ended", Float(53)),  # when it was revoked
)

BUNDLES = Table(
    "hub_bundles",
    METADATA,
    Column("code", String(64), primary_key=True),  # SHA-256 of the content
    Column("content", LargeBinary, nullable=False),
    Column("brought_by", String(64), nullable=False),
    Column("at", Float(53), nullable=False),
)

RUNS = Table(
    "hub_runs",
    METADATA,
    Column("run", String(64), primary_key=True),
    Column("permit", String(64), nullable=False),
    Column("applicant", String(64), nullable=False),
    Column("query", LargeBinary, nullable=False),
    Column("status", String(20), nullable=False),
    Column("reason", Text, nullable=False),
    Column("opened", Float(53), nullable=False),
    Column("ended", Float(53)),
    Column("revision", BigInteger, nullable=False),
    Column("machine", LargeBinary, nullable=False),
    Column("steps", LargeBinary, nullable=False),  # the algorithm's step that is asked, empty before the first
    Column("progress", LargeBinary, nullable=False),
    Column("story", LargeBinary, nullable=False),
    Column("result", LargeBinary),
    Column("pending", LargeBinary),  # an AddUp that is being done, or `serve`: an app is to be started
    Index("hub_runs_opened", "opened"),
)

ATTEMPTS = Table(
    "hub_attempts",
    METADATA,
    Column("entry", String(64), primary_key=True),  # E
    Column("run", String(64), nullable=False),
    Column("number", Integer, nullable=False),  # its place in the federation log
)

UPLOADS = Table(
    "hub_uploads",
    METADATA,
    Column("entry", String(64), primary_key=True),
    Column("site", String(40), primary_key=True),
    Column("masked", LargeBinary),  # None: the bytes lie in the spool, under the hash that the upload names
)

HELD = Table(
    "hub_held",
    METADATA,
    Column("entry", String(64), primary_key=True),
    Column("site", String(40), primary_key=True),
    Column("revision", BigInteger, primary_key=True),
    Column("proposal", LargeBinary, nullable=False),
)
"""Proposals that wait for a cosigned checkpoint which covers their opening entry."""
