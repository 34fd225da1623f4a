"""Who may ask and what they may spend; keys, the ledger, TLS."""
