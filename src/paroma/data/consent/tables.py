"""The records of consent. Times are seconds since 1970."""

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Float,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    Text,
)

METADATA = MetaData()

STATEMENTS = Table(
    "consent_statements",
    METADATA,
    Column("patient", String(64), primary_key=True),
    Column("id", String(64), primary_key=True),
    Column("given", Float, nullable=True),
    Column("active", Boolean, nullable=False),
    Column("rule", String(64), nullable=False),  # digest of its rule
    Column("unclear", Text, nullable=False),
    Index("consent_statements_rule", "rule"),
)

# Thousands of patients sign the same form: each form is kept, and judged, once.
RULES = Table(
    "consent_rules",
    METADATA,
    Column("digest", String(64), primary_key=True),
    Column("rule", LargeBinary, nullable=False),  # JSON of `statement.Rule`, or `null`
)

CHOICES = Table(
    "consent_choices",
    METADATA,
    Column("number", String(16), primary_key=True),
    Column("seq", BigInteger, nullable=False, unique=True),
    Column("patient", String(64), nullable=False),
    Column("scope_kind", String(16), nullable=False),
    Column("scope_of", String(64), nullable=False),
    Column("says", String(3), nullable=False),
    Column("by", String(32), nullable=False),
    Column("at", Float, nullable=False),
    Column("salt", LargeBinary, nullable=False),
    Column("newest", Boolean, nullable=False),  # of its patient and scope
    Index("consent_choices_patient", "patient"),
)

OVERRIDES = Table(
    "consent_overrides",
    METADATA,
    Column("id", String(64), primary_key=True),
    Column("purpose", String(48), nullable=False),
    Column("study", String(64), nullable=False),
    Column("law", Text, nullable=False),
    Column("starts", Float, nullable=False),
    Column("ends", Float, nullable=False),
)

# One line for every change, in one order with everything that is committed.
CHANGES = Table(
    "consent_changes",
    METADATA,
    Column("seq", BigInteger, primary_key=True, autoincrement=False),
    Column("patient", String(64), nullable=False),  # empty: all patients
    Column("kind", String(16), nullable=False),  # no, yes, statement, override, erasure
    Column("scope_kind", String(16), nullable=False),
    Column("scope_of", String(64), nullable=False),
    Column("at", Float, nullable=False),
    Index("consent_changes_patient", "patient"),
)

# One row. Whoever takes a number locks it, so that numbers become visible in their order, on PostgreSQL too.
ORDER = Table(
    "consent_order",
    METADATA,
    Column("only", Integer, primary_key=True, autoincrement=False),
    Column("seq", BigInteger, nullable=False),
)
