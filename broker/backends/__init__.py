"""How the broker talks to backends: one file a kind."""
