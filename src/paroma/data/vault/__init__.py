"""Patients' records, each sealed under a key of its own, so that destroying keys erases backups too. Start at
`vault.Vault`.
"""
