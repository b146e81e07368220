"""Bytes between programs: `network` is the way out, `framing` a message's form, `spool` where uploads gather."""
