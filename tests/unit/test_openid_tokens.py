"""What a provider's token must be to be believed: signed by it, for this server, in time, for this sign-in."""

import time

import pytest

pytest.importorskip("authlib")
from joserfc import jwt
from joserfc.jwk import KeySet, OctKey, RSAKey

from lmvp.errors import NotAuthenticated
from lmvp_server.settings import Provider
from lmvp_server.web.openid_client import OpenId

ISSUER = "https://sign-in.example.org"
KEY = RSAKey.generate_key(2048, parameters={"kid": "1"})
OTHER = RSAKey.generate_key(2048, parameters={"kid": "1"})


@pytest.fixture
def openid(monkeypatch):
    openid = OpenId(Provider(ISSUER, "lmvp"))
    public = KeySet([KEY]).as_dict(private=False)
    documents = {
        f"{ISSUER}/.well-known/openid-configuration": {"issuer": ISSUER, "jwks_uri": f"{ISSUER}/jwks"},
        f"{ISSUER}/jwks": public,
    }
    monkeypatch.setattr(openid, "_get", documents.__getitem__)
    return openid


def claims(**news):
    now = int(time.time())
    whole = {"iss": ISSUER, "aud": "lmvp", "sub": "s-1", "exp": now + 300, "iat": now, "nonce": "n", **news}
    return {name: value for name, value in whole.items() if value is not None}


def token(given, key=KEY, algorithm="RS256"):
    return jwt.encode({"alg": algorithm, "kid": "1"}, given, key, algorithms=[algorithm])


def test_one_that_is_right(openid):
    assert openid._claims(token(claims()), "n")["sub"] == "s-1"
    assert openid._claims(token(claims(aud=["lmvp", "other"], azp="lmvp")), "n")["sub"] == "s-1"


@pytest.mark.parametrize(
    "news",
    [
        {"iss": "https://evil.example"},
        {"aud": "other"},
        {"aud": ["lmvp", "other"]},
        {"aud": ["lmvp", "other"], "azp": "other"},
        {"azp": "other"},
        {"nonce": "another"},
        {"nonce": None},
        {"sub": None},
        {"exp": None},
        {"exp": int(time.time()) - 3600},
        {"iat": int(time.time()) + 3600},
        {"nbf": int(time.time()) + 3600},
    ],
    ids=lambda news: "-".join(news),
)
def test_one_that_is_not(openid, news):
    with pytest.raises(NotAuthenticated):
        openid._claims(token(claims(**news)), "n")


def test_one_that_somebody_else_signed(openid):
    public = KEY.as_pem(private=False)
    for forged in (
        token(claims(), OTHER),
        token(claims(), OctKey.import_key(b"x" * 32), "HS256"),
        token(claims(), OctKey.import_key(public.replace(b"-----", b"     ")), "HS256"),
        "eyJhbGciOiJub25lIn0.eyJzdWIiOiJzLTEifQ.",
        "",
        "a.b.c",
        token(claims())[:-4] + "AAAA",
    ):
        with pytest.raises(NotAuthenticated):
            openid._claims(forged, "n")
