"""What a hospital keeps: records in a vault, consents, and the tables that may be made of them."""
