"""Stands for a CI system: an OpenID provider that gives each job a signed token about itself.

    python ci_system.py PORT AUDIENCE

`GET /job-token?ref=refs/heads/main` is what a job asks; the rest is discovery, as every such provider has it.
"""

import sys
import time
from uuid import uuid4

import jwt
import uvicorn
from cryptography.hazmat.primitives.asymmetric import ec
from jwt.algorithms import ECAlgorithm
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

KEY = ec.generate_private_key(ec.SECP256R1())


def create_app(issuer: str, audience: str) -> Starlette:
    async def discovery(_request: Request) -> Response:
        return JSONResponse({"issuer": issuer, "jwks_uri": f"{issuer}/jwks"})

    async def jwks(_request: Request) -> Response:
        public = ECAlgorithm.to_jwk(KEY.public_key(), as_dict=True)
        return JSONResponse({"keys": [public | {"kid": "ci-1", "alg": "ES256", "use": "sig"}]})

    async def job_token(request: Request) -> Response:
        now, ref = int(time.time()), request.query_params["ref"]
        claims = {
            "iss": issuer,
            "aud": audience,
            "sub": f"repo:octo/shop:ref:{ref}",
            "repository_id": "4711",
            "ref": ref,
            "environment": "production",
            "jti": str(uuid4()),
            "iat": now,
            "exp": now + 300,
        }
        token = jwt.encode(claims, KEY, algorithm="ES256", headers={"kid": "ci-1"})
        return JSONResponse({"value": token})

    async def healthz(_request: Request) -> Response:
        return JSONResponse({"status": "ok"})

    return Starlette(
        routes=[
            Route("/.well-known/openid-configuration", discovery),
            Route("/jwks", jwks),
            Route("/job-token", job_token),
            Route("/healthz", healthz),
        ]
    )


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    port = int(sys.argv[1])
    app = create_app(f"http://127.0.0.1:{port}", sys.argv[2])
    uvicorn.run(app, host="127.0.0.1", port=port, log_level="warning")
