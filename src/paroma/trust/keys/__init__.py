"""Keys behind handles: the rest of the house signs with them and never sees a private number.

Start at `signing` (ES256, for everything that a program or a person signs) and `log_keys` (Ed25519, for logs and
witnesses); `files` keeps both as files. A handle in a TPM or a key service offers the same methods.
"""
