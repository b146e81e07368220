"""Keys behind handles: the rest of the house signs and wraps with them and never sees a private number.

Start at `signing` (ES256, for everything that a program or a person signs) and `log_keys` (Ed25519, for logs and
witnesses); `files` keeps both as files. `named` opens a key by its name wherever it lives: `names` has the form of names,
`wrapping` the handle of keys that wrap, `tpm`, `token` (PKCS#11) and `kms` are the other homes.
"""
