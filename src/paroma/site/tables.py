"""The site's own tables: permits as it knows them, runs, sums it was told. Times are unix seconds."""

from sqlalchemy import BigInteger, Boolean, Column, Float, Integer, LargeBinary, MetaData, String, Table, Text

METADATA = MetaData()

PERMITS = Table(
    "site_permits",
    METADATA,
    Column("permit", String(64), primary_key=True),
    Column("study", String(64), nullable=False),
    Column("content", LargeBinary, nullable=False),  # msgpack of SignedPermit
    Column("asked_by", String(240), nullable=False),
    Column("benefit", Text, nullable=False),
    Column("state", String(20), nullable=False),  # waiting, signed, refused, valid, revoked
    Column("reasons", Text, nullable=False),  # JSON: why it was refused
    Column("at", Float(53), nullable=False),
    Column("ended", Float(53)),  # when it was revoked
)

BUNDLES = Table(
    "site_bundles",
    METADATA,
    Column("code", String(64), primary_key=True),  # SHA-256 of the content
    Column("content", LargeBinary, nullable=False),
)
"""Apps that came with an application, by the digest that the permit names."""

RUNS = Table(
    "site_runs",
    METADATA,
    Column("run", String(64), primary_key=True),
    Column("permit", String(64), nullable=False),
    Column("query", LargeBinary, nullable=False),
    Column("state", LargeBinary, nullable=False),  # the machine's state, sealed
    Column("over", Boolean, nullable=False),
    Column("seq", BigInteger, nullable=False),  # the last change of consent before the current contribution was read
    Column("pending", LargeBinary),  # what the first vote for the current contribution will commit
    Column("opened", Float(53), nullable=False),
    Column("computed", Float(53), nullable=False, default=0.0),  # s that workers took for it
    Column("sent", BigInteger, nullable=False, default=0),  # bytes of masked contributions
)

ENTRIES = Table(
    "site_entries",
    METADATA,
    Column("entry", String(64), primary_key=True),  # E
    Column("run", String(64), nullable=False),
)

SUMS = Table(
    "site_sums",
    METADATA,
    Column("run", String(64), primary_key=True),
    Column("step", Integer, primary_key=True, autoincrement=False),
    Column("request", LargeBinary, nullable=False),
    Column("total", LargeBinary),
    Column("salt", LargeBinary),  # of the digest of the total that stands in the federation log
)
"""What was asked in each step, and the sum that came out: from these the site recomputes the model that it is sent next."""

MASKED = Table(
    "site_masked",
    METADATA,
    Column("entry", String(64), primary_key=True),
    Column("content", LargeBinary, nullable=False),
)
"""Masked contributions that are too big for a message: durable before the first byte leaves."""

MEMORY = Table(
    "site_memory",
    METADATA,
    Column("only", Integer, primary_key=True, autoincrement=False),
    Column("content", LargeBinary, nullable=False),
)
"""What was committed without privacy: against sums that differ by a few patients. One row."""

FLAGS = Table(
    "site_flags",
    METADATA,
    Column("name", String(40), primary_key=True),
    Column("value", Text, nullable=False),
)

RECEIPTS = Table(
    "site_receipts",
    METADATA,
    Column("number", String(40), primary_key=True),
    Column("entry", BigInteger, nullable=False),  # its place in the site log
    Column("seconds", Float(53), nullable=False),  # from the request to the durable withdrawal
)
