"""Storage: small protocols (`protocols`), a twin in memory, and SQLite."""
