"""A record as an event of the Open Cybersecurity Schema Framework."""
