"""What hub and sites say to each other about permits, over the line. A permit is worth its signatures, never its
bearer.
"""

from typing import Literal

import msgspec

from paroma.kernel.ids import PermitId, SiteId
from paroma.trust.permit.permit import Permit, Signature, SignedPermit


class PermitProposed(msgspec.Struct, frozen=True, kw_only=True, tag="permit-proposed", forbid_unknown_fields=True):
    """Hub to each participant: would your officer sign this? asked_by, benefit: the applicant's words, for people.

    bundle: the app whose digest the permit names, empty where it names none.
    """

    permit: Permit
    asked_by: str
    benefit: str
    bundle: bytes = b""


class PermitRefused(msgspec.Struct, frozen=True, kw_only=True, tag="permit-refused", forbid_unknown_fields=True):
    """Site to hub: not here. policy: its name; because, to_change: sentences, without any count."""

    permit: PermitId
    site: SiteId
    policy: str
    because: str
    to_change: str


class PermitSigned(msgspec.Struct, frozen=True, kw_only=True, tag="permit-signed", forbid_unknown_fields=True):
    """Site to hub: its officer has signed."""

    permit: PermitId
    signature: Signature


class PermitIssued(msgspec.Struct, frozen=True, kw_only=True, tag="permit-issued", forbid_unknown_fields=True):
    """Hub to each participant: everybody has signed."""

    signed: SignedPermit
    asked_by: str


class PermitEnded(msgspec.Struct, frozen=True, kw_only=True, tag="permit-ended", forbid_unknown_fields=True):
    """Hub to each participant, or a site to the hub: nothing more under this permit. It needs no proof to stop.

    reason: a site's, in its officer's words.
    """

    permit: PermitId
    state: Literal["revoked", "refused"]
    reason: str = ""
