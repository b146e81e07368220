"""Tables of policy: what was decided on which facts, house rules by version, packs of one's own, what a trial would change.

Times are unix seconds.
"""

from sqlalchemy import BigInteger, Boolean, Column, Float, Index, Integer, LargeBinary, MetaData, String, Table, Text

METADATA = MetaData()

DECISIONS = Table(
    "policy_decisions",
    METADATA,
    Column("decision", String(64), primary_key=True),  # SHA-256 of the digest of the policies and the request
    Column("ask", LargeBinary, nullable=False),  # canonical JSON; a patient's id is never in it
    Column("action", String(40), nullable=False),
    Column("principal", String(64), nullable=False),  # who asked; of a patient no more than that it was one
    Column("allowed", Boolean, nullable=False),
    Column("policy", String(200), nullable=False),
    Column("policies", String(64), nullable=False),
    Column("times", BigInteger, nullable=False),
    Column("began", Float(53), nullable=False),
    Column("at", Float(53), nullable=False),  # the last time
    Column("until", Float(53), nullable=False),  # kept no longer
    Index("policy_decisions_at", "at"),
    Index("policy_decisions_principal", "principal", "at"),
    Index("policy_decisions_until", "until"),
)

HOUSE = Table(
    "policy_house",
    METADATA,
    Column("version", Integer, primary_key=True, autoincrement=False),
    Column("rules", Text, nullable=False),  # JSON: the rules as text; the highest version is in force
    Column("at", Float(53), nullable=False),
    Column("by", String(64), nullable=False),
)

PACKS = Table(
    "policy_packs",
    METADATA,
    Column("number", Integer, primary_key=True, autoincrement=False),
    Column("name", String(40), nullable=False),
    Column("files", LargeBinary, nullable=False),  # msgpack: name of the file to its bytes
    Column("state", String(10), nullable=False),  # trial, active, retired
    Column("at", Float(53), nullable=False),
    Column("by", String(64), nullable=False),
)

DIFFERENCES = Table(
    "policy_differences",
    METADATA,
    Column("decision", String(64), primary_key=True),
    Column("trial", String(64), primary_key=True),  # digest of the policies on trial
    Column("allowed", Boolean, nullable=False),  # by those in force
    Column("policy", String(200), nullable=False),  # of those on trial
    Column("because", Text, nullable=False),
    Column("times", BigInteger, nullable=False),
    Column("at", Float(53), nullable=False),
)
