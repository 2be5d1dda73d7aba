"""`[exports.NAME]`: what each kind of it means."""

from pathlib import Path

import pytest

from broker.exporting import Export, JsonlFolder, OtlpReceiver, SyslogReceiver, Webhook
from broker.tools_toml import parse


def declared(folder: Path, text: str) -> Export:
    whole = f'[broker]\nissuer = "http://127.0.0.1:8700"\n[exports.siem]\n{text}'
    return parse(whole.encode(), source="tools.toml", folder=folder).exports["siem"]


def test_a_folder_is_relative_to_the_file_and_has_defaults(tmp_path: Path) -> None:
    export = declared(tmp_path, 'kind = "jsonl"\nfolder = "out"')
    assert export == Export(
        name="siem", to=JsonlFolder(folder=str(tmp_path / "out"), max_bytes=64 << 20, compress=False)
    )
    assert (export.form, export.private, export.batch, export.begin) == ("record", False, 200, "first")


@pytest.mark.parametrize(
    ("address", "transport", "host", "port"),
    [
        ("udp://logs.example.com", "udp", "logs.example.com", 514),
        ("tcp://logs.example.com", "tcp", "logs.example.com", 601),
        ("tls://logs.example.com", "tls", "logs.example.com", 6514),
        ("tls://[::1]:7000", "tls", "::1", 7000),
        ("unix:/dev/log", "unix", "/dev/log", 0),
    ],
)
def test_a_syslog_address_says_how_and_where(
    tmp_path: Path, address: str, transport: str, host: str, port: int
) -> None:
    to = declared(tmp_path, f'kind = "syslog"\naddress = "{address}"\nformat = "ocsf"').to
    assert isinstance(to, SyslogReceiver)
    assert (to.transport, to.host, to.port) == (transport, host, port)


def test_secrets_are_named_by_their_files(tmp_path: Path) -> None:
    for name in ("secret", "headers", "ca.pem"):
        (tmp_path / name).write_text("x")
    text = 'url = "https://siem.example.com/in"\nheaders_file = "headers"\n'
    text += 'ca_file = "ca.pem"\ntimeout = "5s"\n'
    hook = declared(tmp_path, f'kind = "webhook"\nsecret_file = "secret"\nprivate = true\n{text}')
    assert hook.private
    assert hook.to == Webhook(
        url="https://siem.example.com/in",
        body="lines",
        secret_file=str(tmp_path / "secret"),
        headers_file=str(tmp_path / "headers"),
        ca_file=str(tmp_path / "ca.pem"),
        timeout_s=5,
    )
    assert declared(tmp_path, f'kind = "otlp"\n{text}').to == OtlpReceiver(
        url="https://siem.example.com/in",
        headers_file=str(tmp_path / "headers"),
        ca_file=str(tmp_path / "ca.pem"),
        timeout_s=5,
    )
