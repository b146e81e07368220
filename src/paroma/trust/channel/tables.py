"""The hub's mailboxes and the site's outbox. Times are seconds since 1970."""

from sqlalchemy import BigInteger, Column, Float, Index, Integer, LargeBinary, MetaData, String, Table

HUB = MetaData()
SITE = MetaData()
METADATA = (HUB, SITE)

MAILBOXES = Table(
    "channel_mailboxes",
    HUB,
    Column("site", String(40), primary_key=True),
    Column("posted", BigInteger, nullable=False),  # number of the newest message for the site
    Column("acknowledged", BigInteger, nullable=False),  # the site has handled those up to this one
    Column("received", BigInteger, nullable=False),  # the hub has handled the site's up to this one
)

POSTED = Table(
    "channel_posted",
    HUB,
    Column("site", String(40), primary_key=True),
    Column("seq", BigInteger, primary_key=True),
    Column("id", String(64), nullable=False),
    Column("body", LargeBinary),  # None once acknowledged; the id stays for a while, so that posting again is seen
    Column("at", Float(53), nullable=False),
    Index("channel_posted_id", "site", "id", unique=True),
)

RECEIVED = Table(
    "channel_received",
    HUB,
    Column("site", String(40), primary_key=True),
    Column("seq", BigInteger, primary_key=True),
    Column("id", String(64), nullable=False),
    Column("at", Float(53), nullable=False),
)

UPLOADS = Table(
    "channel_uploads",
    HUB,
    Column("site", String(40), primary_key=True),
    Column("whole", String(64), primary_key=True),  # hex SHA-256
    Column("total", BigInteger, nullable=False),  # bytes
    Column("begun", Float(53), nullable=False),
)

OUTBOX = Table(
    "channel_outbox",
    SITE,
    Column("seq", BigInteger, primary_key=True, autoincrement=False),
    Column("id", String(64), nullable=False, unique=True),
    Column("body", LargeBinary),  # None once acknowledged
    Column("at", Float(53), nullable=False),
)

LINE = Table(
    "channel_line",
    SITE,
    Column("one", Integer, primary_key=True),  # always 1: a site has one line
    Column("sent", BigInteger, nullable=False),  # number of the newest message of the site
    Column("acknowledged", BigInteger, nullable=False),  # the hub has handled those up to this one
    Column("received", BigInteger, nullable=False),  # the site has handled the hub's up to this one
)
