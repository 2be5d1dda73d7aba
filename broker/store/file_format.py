"""How a log's file says what it is: read before anything else in it is believed."""

APPLICATION_ID = 0x42724B31
"""SQLite's `application_id`: `BrK1`."""

VERSION = 1
"""SQLite's `user_version`: of the tables. Raised where an older broker could not read them."""
