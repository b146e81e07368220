"""The tables of the logs. Numbers count from 0."""

from sqlalchemy import BigInteger, Column, Float, LargeBinary, MetaData, SmallInteger, String, Table, Text

METADATA = MetaData()

LOGS = Table(
    "audit_logs",
    METADATA,
    Column("log", String(64), primary_key=True),
    Column("origin", String(255), nullable=False),
    Column("size", BigInteger, nullable=False),
    Column("root", LargeBinary, nullable=False),
    Column("note", Text, nullable=False),
)
"""The head of each log of this program; changed by compare-and-swap only."""

ENTRIES = Table(
    "audit_entries",
    METADATA,
    Column("log", String(64), primary_key=True),
    Column("number", BigInteger, primary_key=True, autoincrement=False),
    Column("entry", LargeBinary, nullable=False),
)

TILES = Table(
    "audit_tiles",
    METADATA,
    Column("log", String(64), primary_key=True),
    Column("level", SmallInteger, primary_key=True, autoincrement=False),
    Column("number", BigInteger, primary_key=True, autoincrement=False),
    Column("hashes", LargeBinary, nullable=False),
)
"""A tile only gets longer, so each of its partial forms is a beginning of what stands here."""

OFFERS = Table(
    "audit_offers",
    METADATA,
    Column("log", String(64), primary_key=True),
    Column("size", BigInteger, primary_key=True, autoincrement=False),
    Column("note", Text, nullable=False),
    Column("at", Float, nullable=False),
)
"""Checkpoints of a log of this program that witnesses are asked to cosign."""

COSIGNATURES = Table(
    "audit_cosignatures",
    METADATA,
    Column("log", String(64), primary_key=True),
    Column("size", BigInteger, primary_key=True, autoincrement=False),
    Column("witness", String(255), primary_key=True),
    Column("at", BigInteger, nullable=False),
    Column("line", Text, nullable=False),
)

SEEN = Table(
    "audit_seen",
    METADATA,
    Column("origin", String(255), primary_key=True),
    Column("size", BigInteger, nullable=False),
    Column("root", LargeBinary, nullable=False),
    Column("note", Text, nullable=False),
    Column("at", Float, nullable=False),
)
"""The last checkpoint of another's log that was found consistent."""

BROKEN = Table(
    "audit_broken",
    METADATA,
    Column("origin", String(255), primary_key=True),
    Column("what", Text, nullable=False),
    Column("note", Text, nullable=False),
    Column("at", Float, nullable=False),
)
"""Logs that were found inconsistent, with the checkpoint that shows it: evidence, never removed by a program."""

FOLLOWED = Table(
    "audit_followed",
    METADATA,
    Column("origin", String(255), primary_key=True),
    Column("size", BigInteger, nullable=False),
    Column("edge", LargeBinary, nullable=False),
)
"""How far another's log was read and checked, with the hashes that the rest must continue."""
