"""The tables that the kernel itself keeps in every store."""

from sqlalchemy import BigInteger, Column, Float, Index, Integer, LargeBinary, MetaData, String, Table

METADATA = MetaData()

LEASES = Table(
    "store_leases",
    METADATA,
    Column("job", String, primary_key=True),
    Column("holder", String, nullable=False),
    Column("term", BigInteger, nullable=False),  # grows whenever the holder changes
    Column("until", Float, nullable=False),  # seconds since 1970
)

OUTBOX = Table(
    "store_outbox",
    METADATA,
    Column("place", BigInteger().with_variant(Integer, "sqlite"), primary_key=True, autoincrement=True),
    Column("id", String, nullable=False, unique=True),
    Column("receiver", String, nullable=False),
    Column("body", LargeBinary, nullable=False),
    Column("at", Float, nullable=False),  # seconds since 1970
    Column("sent_at", Float),  # null until the receiver has confirmed it
    sqlite_autoincrement=True,  # a place is never used twice, also after rows were forgotten
)
Index(
    "store_outbox_unsent",
    OUTBOX.c.receiver,
    OUTBOX.c.place,
    sqlite_where=OUTBOX.c.sent_at.is_(None),
    postgresql_where=OUTBOX.c.sent_at.is_(None),
)
