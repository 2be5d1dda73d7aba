"""Give an agent tools without giving it keys."""

__version__ = "0.1.0"
