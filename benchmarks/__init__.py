"""Speed, measured against the same server without a broker: `make bench`."""
