"""Proofs of possession: what holds, what does not, and that each is good once."""

import pytest

from broker.dpop import Expected, Proof, access_token_hash, check_proof

# RFC 9449, figures 2 and 13, and the token and thumbprint of figures 13 and 9.
RFC_JKT = "0ZcOCORZNYy-DWpqq30jZyJGHTN0d2HglBV3uiguA4I"
RFC_TOKEN = "Kz~8mXK1EalYznwH-LC-1fBAo.4Ljp~zsPE_NeO.gxU"
RFC_HEADER = (
    "eyJ0eXAiOiJkcG9wK2p3dCIsImFsZyI6IkVTMjU2IiwiandrIjp7Imt0eSI6IkVDIiwieCI6Imw4dEZyaHgtMzR0VjNoUklDUkRZ"
    "OXpDa0RscEJoRjQyVVFVZldWQVdCRnMiLCJ5IjoiOVZFNGpmX09rX282NHpiVFRsY3VOSmFqSG10NnY5VERWclUwQ2R2R1JEQSIs"
    "ImNydiI6IlAtMjU2In19"
)
RFC_AT_TOKEN_ENDPOINT = (
    RFC_HEADER + ".eyJqdGkiOiItQndDM0VTYzZhY2MybFRjIiwiaHRtIjoiUE9TVCIsImh0dSI6Imh0dHBzOi8vc2VydmVyLmV4YW1wb"
    "GUuY29tL3Rva2VuIiwiaWF0IjoxNTYyMjYyNjE2fQ"
    ".2-GxA6T8lP4vfrg8v-FdWP0A0zdrj8igiMLvqRMUvwnQg4PtFLbdLXiOSsX0x7NVY-FNyJK70nfbV37xRZT3Lg"
)
RFC_AT_RESOURCE = (
    RFC_HEADER + ".eyJqdGkiOiJlMWozVl9iS2ljOC1MQUVCIiwiaHRtIjoiR0VUIiwiaHR1IjoiaHR0cHM6Ly9yZXNvdXJjZS5leGFtc"
    "GxlLm9yZy9wcm90ZWN0ZWRyZXNvdXJjZSIsImlhdCI6MTU2MjI2MjYxOCwiYXRoIjoiZlVIeU8ycjJaM0RaNTNFc05yV0JiMHhX"
    "WG9hTnk1OUlpS0NBcWtzbVFFbyJ9"
    ".2oW9RP35yRqzhrtNP86L-Ey71EOptxRimPPToA1plemAgR6pxHF8y6-yqyVnmcw6Fy1dqd-jfxSYoMxhAJpLjA"
)


@pytest.mark.parametrize(
    ("text", "expected", "proof"),
    [
        pytest.param(
            RFC_AT_TOKEN_ENDPOINT,
            Expected(htm="POST", htu="https://server.example.com/token", now_s=1562262617),
            Proof(
                jkt=RFC_JKT,
                jti="-BwC3ESc6acc2lTc",
                htm="POST",
                htu="https://server.example.com/token",
                iat=1562262616,
                nonce=None,
            ),
            id="figure 2",
        ),
        pytest.param(
            RFC_AT_RESOURCE,
            Expected(
                htm="GET",
                htu="https://resource.example.org/protectedresource",
                now_s=1562262619,
                token=RFC_TOKEN,
                jkt=RFC_JKT,
            ),
            Proof(
                jkt=RFC_JKT,
                jti="e1j3V_bKic8-LAEB",
                htm="GET",
                htu="https://resource.example.org/protectedresource",
                iat=1562262618,
                nonce=None,
            ),
            id="figure 13",
        ),
    ],
)
def test_the_proofs_of_rfc_9449_hold(text: str, expected: Expected, proof: Proof) -> None:
    assert check_proof([text], expected, family="credential") == proof


def test_the_hash_of_the_token_of_rfc_9449_is_its_ath() -> None:
    assert access_token_hash(RFC_TOKEN) == "fUHyO2r2Z3DZ53EsNrWBb0xWXoaNy59IiKCAqksmQEo"
