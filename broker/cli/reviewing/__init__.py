"""The actions of `broker log`, one module each: `configure` declares its arguments, `run` answers."""
