"""The records of the patients' ledger. Times are seconds since 1970."""

from sqlalchemy import BigInteger, Column, Float, Index, Integer, LargeBinary, MetaData, String, Table, Text

METADATA = MetaData()

# Which row of a cohort is whose, once for each cohort that was made, and what allowed it.
ROWS = Table(
    "rights_rows",
    METADATA,
    Column("cohort", String(64), primary_key=True),
    Column("row", Integer, primary_key=True, autoincrement=False),
    Column("patient", String(64), nullable=False),
    Column("rule", Text, nullable=False),
    Index("rights_rows_patient", "patient"),
)

# One line for each time that a cohort was read for a round: a million patients cost one bitmap.
USES = Table(
    "rights_uses",
    METADATA,
    Column("run", String(64), primary_key=True),
    Column("round", BigInteger, primary_key=True, autoincrement=False),
    Column("attempt", BigInteger, primary_key=True, autoincrement=False),
    Column("cohort", String(64), nullable=False),
    Column("permit", String(64), nullable=False),
    Column("study", String(64), nullable=False),
    Column("title", Text, nullable=False),
    Column("purpose", String(48), nullable=False),
    Column("asked_by", Text, nullable=False),
    Column("read_at", Float, nullable=False),
    Column("rows", LargeBinary, nullable=False),  # packed, bit i (lowest first) = row i was read
    Column("people", Integer, nullable=False),
    Column("state", String(16), nullable=False),  # read, committed, recalled
    Column("committed_at", Float, nullable=True),
    Index("rights_uses_cohort", "cohort"),
)
