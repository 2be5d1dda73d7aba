"""Which hosts are this machine alone: there nobody carries what is sent, so plain HTTP shows it to nobody."""

from ipaddress import ip_address


def is_loopback(host: str) -> bool:
    """Whether it is `localhost`, or an address of loopback. No name is looked up."""
    if host == "localhost":
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False
