"""What a patient can ask for: here the ledger of the uses of their records. Start at `ledger`."""
