"""Who runs a command that changes what the log keeps."""

import os
import pwd


def user() -> str:
    """Of the operating system, whatever the environment says."""
    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        return str(os.getuid())
