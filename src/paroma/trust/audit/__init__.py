"""Logs that cannot be rewritten unnoticed: the federation log at the hub, the site log at each site, one code.

Read in this order: `merkle` (hashes), `proofs` (inclusion, consistency), `tiles` (how a log is served), `notes` and
`checkpoint` (signed heads), `cosignatures` (who else has seen them), `entries` (what is sealed), `log` (the log of this
program), `cosigning` (the hub gathers a quorum), `witness` (what this program remembers of another's log), `follow`
(reading another's log byte by byte), `verify` (the whole log, for an auditor).

Standards: RFC 9162 (hashes and proofs); C2SP tlog-tiles, signed-note, tlog-checkpoint, tlog-cosignature, tlog-witness.
"""
