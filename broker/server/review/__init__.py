"""The page for reviewers: server-rendered, read-only, and what is looked at is itself recorded."""
