"""The log, told to other systems: at least once, in order, and without anybody's waiting for it."""
