"""How a log's file says what it is: read before anything else in it is believed."""

APPLICATION_ID = 0x42724B31
"""SQLite's `application_id`: `BrK1`."""

VERSION = 3
"""SQLite's `user_version`: of the tables. Raised where an older broker must not write them: the first one
knows of no session that ends with another, the second of no part of a record that can be erased."""

READABLE = (1, 2, 3)
"""What a reader takes. Who writes brings the file to `VERSION` first."""

BESIDE_SINCE = 3
"""The first version in which roots of subtrees, private parts and archives lie beside the records."""
