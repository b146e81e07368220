"""Persons, single-use links, browser sessions, logins at a provider, the revocation epoch."""

from sqlalchemy import BigInteger, Boolean, Column, Float, Index, Integer, MetaData, String, Table

METADATA = MetaData()

PEOPLE = Table(
    "identity_people",
    METADATA,
    Column("person", String(40), primary_key=True),
    Column("name", String(120), nullable=False),  # as shown
    Column("role", String(20), nullable=False),
    Column("site", String(40)),  # None: of no site
    Column("thumbprint", String(43), unique=True),  # a key is one person's, in one role; None: signs in at a provider
    Column("jwk", String(400)),  # canonical JSON
    Column("enrolled", Float(53), nullable=False),  # seconds since 1970, as all times here
    Column("revoked", Float(53)),
)

LINKS = Table(
    "identity_links",
    METADATA,
    Column("hash", String(64), primary_key=True),  # SHA-256 of the code: the code itself is kept nowhere
    Column("kind", String(10), nullable=False),  # enrol | browser
    Column("subject", String(64)),  # browser: whose session it opens
    Column("name", String(120), nullable=False),
    Column("role", String(20), nullable=False),  # a Role, or `patient`
    Column("site", String(40)),
    Column("made", Float(53), nullable=False),
    Column("ends", Float(53), nullable=False),
    Column("session_seconds", Float(53)),  # browser: life of the session that it opens
    Column("used", Float(53)),
    Column("used_by", String(64)),  # enrol: thumbprint; browser: id of the session
)

SESSIONS = Table(
    "identity_sessions",
    METADATA,
    Column("session", String(40), primary_key=True),  # its name in lists; opens nothing
    Column("hash", String(64), nullable=False, unique=True),  # SHA-256 of the cookie
    Column("subject", String(64), nullable=False),
    Column("name", String(120), nullable=False),
    Column("role", String(20), nullable=False),
    Column("site", String(40)),
    Column("browser", String(120), nullable=False),  # as it called itself, for the list of sessions
    Column("opened", Float(53), nullable=False),
    Column("ends", Float(53), nullable=False),
    Column("revoked", Boolean, nullable=False),
    Column("seen", Float(53), nullable=False),  # when it was last used, to the minute
    Column("login", String(64)),  # SHA-256 of the provider and its session, which can end this one
    Index("identity_sessions_subject", "subject"),
    Index("identity_sessions_login", "login"),
)

ACCOUNTS = Table(
    "identity_accounts",
    METADATA,
    Column("account", String(64), primary_key=True),  # SHA-256 of the provider and its name for somebody
    Column("person", String(40), nullable=False),
    Column("mapped", Boolean, nullable=False),  # their role comes from a claim; else from the link that enrolled them
    Column("at", Float(53), nullable=False),
)
"""Who somebody is who signs in at a provider."""

LOGINS = Table(
    "identity_logins",
    METADATA,
    Column("hash", String(64), primary_key=True),  # SHA-256 of the cookie of the browser that began
    Column("state", String(43), nullable=False),
    Column("nonce", String(43), nullable=False),
    Column("verifier", String(43), nullable=False),  # PKCE (RFC 7636)
    Column("link", String(64)),  # SHA-256 of the code of an enrolment link that is to be spent
    Column("to", String(200), nullable=False),  # the page that was wanted
    Column("ends", Float(53), nullable=False),
)
"""Logins at a provider that have begun: each is answered once, in the browser that began it."""

EPOCH = Table(
    "identity_epoch",
    METADATA,
    Column("one", Integer, primary_key=True),  # always 1: there is one epoch
    Column("number", BigInteger, nullable=False),
)
