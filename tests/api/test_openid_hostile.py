"""A provider of OpenID Connect that lies, stalls and floods: nobody gets another's account, and the server goes on."""

import asyncio
import gzip
import json
import logging
import re
import resource
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from importlib.util import find_spec
from urllib.parse import parse_qs, urlsplit

import pytest
import requests
from support.openid_provider import CODE, DISCOVERY, JWKS, TOKEN, Provider, send

from lmvp.client.models import Client
from lmvp_server.app import App
from lmvp_server.settings import Settings

pytestmark = pytest.mark.skipif(not find_spec("authlib"), reason="no Authlib")
if find_spec("authlib"):
    from joserfc import jwt
    from joserfc.jwk import ECKey, OctKey, RSAKey
    from support.openid_provider import KEY

    from lmvp_server.web import openid_client as openid
    from lmvp_server.web.openid_client import OpenId, ProviderFailed

    NEWER = RSAKey.generate_key(2048, parameters={"kid": "2"})
    FOREIGN = RSAKey.generate_key(2048, parameters={"kid": "1"})

PASSWORD = "correct horse battery"
SECRET = "the-secret-of-this-client"
MIB = 1 << 20


@pytest.fixture
def provider():
    provider = Provider()
    yield provider
    provider.close()


class Serving:
    """A whole server in a thread of this process."""

    def __init__(self, data):
        self.app = App(Settings(data, token="t" * 40, grace_seconds=5))
        self.ready = threading.Event()
        self.thread = threading.Thread(target=lambda: asyncio.run(self._serve()))
        self.thread.start()
        assert self.ready.wait(60)
        self.url, self.root = self.app.url, Client(self.app.url, "t" * 40)
        self.before = set()

    def use(self, provider):
        """Let users sign in at a provider that the server has not asked anything yet."""
        known = openid.Provider(provider.issuer, "lmvp", SECRET, "Example", sign_up=True)
        self.app._server.request_callback.settings["openid"] = OpenId(known)
        self.before = {one.name for one in self.root.users()}

    async def _serve(self):
        await self.app.start()
        self.loop = asyncio.get_running_loop()
        self.ready.set()
        await self.app.run()
        await self.app.stop()

    def end(self):
        self.loop.call_soon_threadsafe(self.app.end)
        self.thread.join(60)
        assert not self.thread.is_alive()


@pytest.fixture(scope="module")
def serving(tmp_path_factory):
    serving = Serving(tmp_path_factory.mktemp("server") / "data")
    serving.root.add_user("ada", PASSWORD, admin=True)
    serving.root.add_user("a-d-a", PASSWORD)
    yield serving
    serving.end()


@pytest.fixture
def server(home, serving, provider):
    serving.use(provider)
    return serving


class Browser(requests.Session):
    """A browser at the server; it follows no redirect by itself."""

    def __init__(self, server, provider):
        super().__init__()
        self.server, self.provider = server, provider

    def look(self, path):
        return self.get(f"{self.server.url}/{path}", timeout=60, allow_redirects=False)

    def begin(self, path="openid"):
        """Return the parameters that the provider is asked with; its ID token will have the nonce."""
        answer = self.look(path)
        assert answer.status_code == 303, answer.text
        asked = {name: values[0] for name, values in parse_qs(urlsplit(answer.headers["Location"]).query).items()}
        self.provider.nonce = asked["nonce"]
        return asked

    def sign_in(self, path="openid"):
        return self.look(f"openid-back?state={self.begin(path)['state']}&code={CODE}")

    def login(self, name):
        xsrf = re.search(r'name="_xsrf" value="([0-9a-f]+)"', self.look("login").text)[1]
        data = {"_xsrf": xsrf, "name": name, "password": PASSWORD}
        answer = self.post(f"{self.server.url}/login", data=data, timeout=60, allow_redirects=False)
        assert answer.status_code == 303


def refused(answer, *statuses):
    """Make sure that an answer is a plain page about a failure, and gives no session."""
    assert answer.status_code in statuses, answer.text[-400:]
    assert "lmvp_session=" not in answer.headers.get("Set-Cookie", "")
    assert "<!doctype html>" in answer.text.lower()
    assert "<script>" not in answer.text
    assert SECRET not in answer.text
    assert CODE not in answer.text


def made(server):
    """Return the accounts that this test made."""
    return sorted({one.name for one in server.root.users()} - server.before)


def test_sign_in_works_at_an_honest_provider(server, provider):
    answer = Browser(server, provider).sign_in()
    assert (answer.status_code, answer.headers["Location"]) == (303, ".")
    assert made(server) == [provider.name]
    assert provider.asked == [DISCOVERY, TOKEN, JWKS]


# -- tokens


NOW = int(time.time())
CLAIMS = [
    {"iss": "https://evil.example"},
    {"iss": "-absent-"},
    {"iss": ["{issuer}"]},
    {"aud": "another"},
    {"aud": []},
    {"aud": {"lmvp": 1}},
    {"aud": ["lmvp", "another"]},
    {"aud": ["lmvp", "another"], "azp": "another"},
    {"azp": "another"},
    {"azp": ["lmvp"]},
    {"nonce": "-absent-"},
    {"nonce": "another"},
    {"nonce": ["{nonce}"]},
    {"exp": "-absent-"},
    {"exp": NOW - 3600},
    {"exp": "later"},
    {"exp": True},
    {"exp": None},
    {"exp": float("nan")},
    {"exp": float("inf")},
    {"exp": 10**400, "nbf": 10**399},
    {"iat": "-absent-"},
    {"iat": NOW + 3600},
    {"nbf": NOW + 3600},
    {"sub": "-absent-"},
    {"sub": ""},
    {"sub": 7},
    {"sub": True},
    {"sub": ["s-1"]},
    {"sub": {"s": 1}},
    {"sub": "s" * 256},
    {"sub": "s-1\r\nSet-Cookie: lmvp_session=planted"},
    {"sub": "s-1\x00"},
    {"sub": "\ud800"},
    {"sub": "s" * 2_000_000},
]


@pytest.mark.parametrize("claims", CLAIMS, ids=lambda claims: "-".join(claims))
def test_id_token_with_wrong_claims_opens_no_session(home, provider, claims):
    client = OpenId(openid.Provider(provider.issuer, "lmvp", SECRET))
    url = client.begin("browser", "http://here/openid-back")
    asked = {name: values[0] for name, values in parse_qs(urlsplit(url).query).items()}
    provider.nonce = asked["nonce"]
    provider.claims = {
        name: [one.format(issuer=provider.issuer, nonce=provider.nonce) for one in value]
        if name in {"iss", "nonce"} and isinstance(value, list)
        else value
        for name, value in claims.items()
    }
    provider.sign = sign_any
    with pytest.raises((openid.NotAuthenticated, ProviderFailed)):
        client.end("browser", {"state": asked["state"], "code": CODE})


def sign_any(claims):
    """Sign claims that the library itself refuses to write: half a surrogate pair."""
    from joserfc import jws

    return jws.serialize_compact({"alg": "RS256", "kid": "1"}, json.dumps(claims).encode(), KEY, algorithms=["RS256"])


def unsigned(claims):
    from base64 import urlsafe_b64encode

    parts = ({"alg": "none", "typ": "JWT"}, claims)
    return ".".join(urlsafe_b64encode(json.dumps(part).encode()).decode().rstrip("=") for part in parts) + "."


def symmetric(claims, secret):
    from base64 import urlsafe_b64encode
    from hashlib import sha256
    from hmac import digest

    parts = ({"alg": "HS256", "kid": "1"}, claims)
    text = ".".join(urlsafe_b64encode(json.dumps(part).encode()).decode().rstrip("=") for part in parts)
    return f"{text}.{urlsafe_b64encode(digest(secret, text.encode(), sha256)).decode().rstrip('=')}"


def embedded(claims):
    header = {"alg": "RS256", "kid": "1", "jwk": FOREIGN.as_dict(private=False), "jku": "http://127.0.0.1:9/jwks"}
    return jwt.encode(header, claims, FOREIGN, algorithms=["RS256"])


FORGED = {
    "alg none": unsigned,
    "HS256 with the public key": lambda claims: symmetric(claims, KEY.as_pem(private=False)),
    "HS256 with the client secret": lambda claims: symmetric(claims, SECRET.encode()),
    "HS256 with nothing": lambda claims: symmetric(claims, b""),
    "foreign key": lambda claims: jwt.encode({"alg": "RS256", "kid": "1"}, claims, FOREIGN, algorithms=["RS256"]),
    "foreign kid": lambda claims: jwt.encode({"alg": "RS256", "kid": "9"}, claims, FOREIGN, algorithms=["RS256"]),
    "kid that is no text": lambda claims: unsigned(claims).replace(unsigned(claims)[:20], "eyJraWQiOlsxXX0."),
    "key in the header": embedded,
    "dots": lambda _: "." * 50_000,
    "no Base64": lambda _: "a.\u00fc.c",
    "deep header": lambda _: "W1tb" * 10_000 + ".e30.AAAA",
    "encrypted": lambda _: "e30.e30.e30.e30.e30",
}


@pytest.mark.parametrize("forged", FORGED)
def test_forged_id_token_opens_no_session(server, provider, forged):
    provider.sign = FORGED[forged]
    refused(Browser(server, provider).sign_in(), 401)
    assert made(server) == []


@pytest.mark.parametrize("token", ["", None, 7, {"a": [1]}, ["x"], pytest.param("a" * 100_000, id="long")])
def test_response_without_an_id_token_is_a_failure_of_the_provider(server, provider, token):
    provider.lies[TOKEN] = {"access_token": "an-access-token", "token_type": "Bearer", "id_token": token}
    refused(Browser(server, provider).sign_in(), 502)


def test_symmetric_key_in_the_key_set_is_ignored(server, provider):
    secret = OctKey.import_key("a" * 64, parameters={"kid": "1"})
    provider.lies[JWKS] = {"keys": [secret.as_dict(private=True)]}
    provider.sign = lambda claims: symmetric(claims, b"a" * 64)
    refused(Browser(server, provider).sign_in(), 502)


def test_rotated_key_is_fetched_and_a_withdrawn_one_is_refused(server, provider, monkeypatch):
    assert Browser(server, provider).sign_in().status_code == 303
    monkeypatch.setattr(openid, "_KEYS_EVERY", 0.0)
    old, provider.keys = provider.sign, [NEWER]
    provider.sign = lambda claims: jwt.encode({"alg": "RS256", "kid": "2"}, claims, NEWER, algorithms=["RS256"])
    assert Browser(server, provider).sign_in().status_code == 303
    provider.sign = old
    refused(Browser(server, provider).sign_in(), 401)


def test_unknown_signatures_fetch_the_keys_once_a_minute(server, provider):
    provider.sign = FORGED["foreign key"]
    for _ in range(5):
        refused(Browser(server, provider).sign_in(), 401)
    assert provider.asked.count(JWKS) == 1


# -- states, codes, accounts


def test_state_is_bound_to_its_browser_and_works_once(server, provider):
    mine, victim = Browser(server, provider), Browser(server, provider)
    back = f"openid-back?state={mine.begin()['state']}&code={CODE}"
    refused(victim.look(back), 401)  # login CSRF: the attacker's own sign-in in the victim's browser
    refused(mine.look(back), 401)
    back = f"openid-back?state={mine.begin()['state']}&code={CODE}"
    assert mine.look(back).status_code == 303
    refused(mine.look(back), 401)
    mixed, planted = mine.begin()["state"], "a" * 43
    victim.begin()
    refused(victim.look(f"openid-back?state={mixed}&code={CODE}"), 401)
    for state in (planted, "", "%00", "%ff", "a" * 5000, "x&state=y"):
        refused(mine.look(f"openid-back?state={state}&code={CODE}"), 400, 401)


def test_code_is_exchanged_with_the_redirect_uri_and_verifier_of_its_sign_in(server, provider):
    seen = []

    def token(request):
        seen.append(request.fields)
        send(request, json.dumps(provider.token()).encode())

    provider.lies[TOKEN] = token
    browser = Browser(server, provider)
    asked = browser.begin()
    answer = browser.get(
        f"{server.url}/openid-back?state={asked['state']}&code={CODE}&redirect_uri=https://evil.example",
        headers={"Host": f"localhost:{urlsplit(server.url).port}", "X-Forwarded-Host": "evil.example",
                 "Cookie": f"lmvp_openid={browser.cookies['lmvp_openid']}"},
        timeout=60, allow_redirects=False,
    )  # fmt: skip
    assert answer.status_code == 303
    assert seen[0]["redirect_uri"] == asked["redirect_uri"] == f"{server.url}/openid-back"
    assert len(seen[0]["code_verifier"]) >= 43


@pytest.mark.parametrize("name", ["ada", "ADA", "a d a", "\u200bada", "{owner}", "{OWNER}"])
def test_name_of_another_account_gives_no_session(server, provider, name):
    owner = server.root.me().name
    provider.claims = {"preferred_username": name.format(owner=owner, OWNER=owner.upper()), "email": "ada@example.org",
                       "email_verified": True}  # fmt: skip
    refused(Browser(server, provider).sign_in(), 409)
    assert made(server) == []


@pytest.mark.parametrize(
    "name",
    ["", None, 7, ["ada"], {"a": "ada"}, "\ud800", "\x00\r\n", "<script>alert(1)</script>", "../..", "n" * 10_000],
)
def test_strange_name_becomes_a_valid_account_name(server, provider, name):
    provider.claims, provider.sign = {"preferred_username": name, "email": 9, "sub": "s-9"}, sign_any
    answer = Browser(server, provider).sign_in()
    assert answer.status_code == 303, answer.text
    (new,) = made(server)
    assert re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,95}", new)
    assert new.lower() not in {"ada", server.root.me().name.lower()}


def test_long_subjects_that_begin_alike_are_no_one_account(server, provider):
    provider.claims = {"sub": "s" * 255}
    assert Browser(server, provider).sign_in().status_code == 303
    provider.claims = {"sub": "s" * 255 + "x"}
    refused(Browser(server, provider).sign_in(), 401)


def test_account_is_connected_only_while_its_session_lasts(server, provider):
    ada = Browser(server, provider)
    ada.login("ada")
    link = re.search(r'href="(openid\?connect=[0-9a-f]+)"', ada.look("").text)[1]
    state = ada.begin(link)["state"]
    del ada.cookies["lmvp_session"]
    refused(ada.look(f"openid-back?state={state}&code={CODE}"), 401)
    provider.claims = {"preferred_username": "later"}
    assert Browser(server, provider).sign_in().status_code == 303
    assert made(server) == ["later"], "nothing was connected to ada"


@pytest.mark.parametrize(
    "where", ["//evil.example", "https://evil.example", "/\\evil.example", "%2F%2Fevil.example", "javascript:alert(1)",
              "x%0d%0aLocation:%20//evil.example", ".%2f..%2f/evil.example"]
)  # fmt: skip
def test_next_leads_to_no_other_site(server, provider, where):
    answer = Browser(server, provider).sign_in(f"openid?next={where}")
    assert (answer.status_code, answer.headers["Location"]) == (303, ".")


def test_unfinished_sign_ins_of_one_address_displace_no_others(provider):
    client = OpenId(openid.Provider(provider.issuer, "lmvp"))
    url = client.begin("grace", "http://here/openid-back", address="10.0.0.1")
    for number in range(500):
        client.begin(f"browser{number}", "http://here/openid-back", address="10.0.0.2")
    assert len(client._begun) == openid._BEGUN_BY_ADDRESS + 1
    asked = {name: values[0] for name, values in parse_qs(urlsplit(url).query).items()}
    provider.nonce = asked["nonce"]
    assert client.end("grace", {"state": asked["state"], "code": CODE})[1].subject == "s-1"


# -- descriptions and endpoints


BAD_ABOUT = {
    "no object": lambda _: [1, 2],
    "a text": lambda _: "text",
    "other issuer": lambda provider: provider.about(issuer="https://evil.example"),
    "issuer with a slash": lambda provider: provider.about(issuer=provider.issuer + "/"),
    "issuer is a list": lambda provider: provider.about(issuer=[provider.issuer]),
    "no endpoint": lambda provider: provider.about(authorization_endpoint=None),
    "script": lambda provider: provider.about(authorization_endpoint="javascript:alert(1)//127.0.0.1"),
    "data": lambda provider: provider.about(authorization_endpoint="data:text/html,<script>alert(1)</script>"),
    "header": lambda provider: provider.about(
        authorization_endpoint=provider.issuer + "/a\r\nSet-Cookie: lmvp_session=x"
    ),
    "other host": lambda provider: provider.about(authorization_endpoint="http://evil.example/authorize"),
    "user name": lambda provider: provider.about(authorization_endpoint="https://sign-in.example.org@evil.example/"),
    "no IPv6": lambda provider: provider.about(authorization_endpoint="https://[::1/authorize"),
    "no port": lambda provider: provider.about(authorization_endpoint="https://example.org:99999/authorize"),
    "not ASCII": lambda provider: provider.about(authorization_endpoint=provider.issuer + "/\u2028\U0001f600"),
    "surrogate": lambda provider: provider.about(authorization_endpoint=provider.issuer + "/\ud800"),
    "object": lambda provider: provider.about(authorization_endpoint={"a": 1}),
    "long": lambda provider: provider.about(authorization_endpoint=provider.issuer + "/" + "a" * 100_000),
}


@pytest.mark.parametrize("lie", BAD_ABOUT)
def test_wrong_description_is_a_failure_of_the_provider(server, provider, lie):
    provider.lies[DISCOVERY] = BAD_ABOUT[lie](provider)
    refused(Browser(server, provider).look("openid"), 502)
    assert requests.get(f"{server.url}/login", timeout=10).status_code == 200


@pytest.mark.parametrize("methods", [7, {"a": 1}, [], [None], "client_secret_post"])
def test_strange_lists_in_the_description_do_no_harm(server, provider, methods):
    provider.lies[DISCOVERY] = provider.about(token_endpoint_auth_methods_supported=methods)
    assert Browser(server, provider).sign_in().status_code == 303


class Listener:
    """A port that notes every connection: of another service that the provider points to."""

    def __init__(self, host="127.0.0.1"):
        self.socket = socket.create_server((host, 0))
        self.port, self.seen = self.socket.getsockname()[1], []
        self.thread = threading.Thread(target=self._accept, daemon=True)
        self.thread.start()

    def _accept(self):
        with suppress(OSError):
            while True:
                connection, _ = self.socket.accept()
                self.seen.append(connection.getpeername())
                connection.close()

    def close(self):
        self.socket.shutdown(socket.SHUT_RDWR)
        self.socket.close()
        self.thread.join()


@pytest.mark.parametrize("endpoint", ["token_endpoint", "jwks_uri"])
@pytest.mark.parametrize("host", ["localhost", "127.0.0.2", "[::ffff:127.0.0.1]", "169.254.169.254", "10.0.0.1"])
def test_endpoint_at_a_private_address_is_not_connected_to(server, provider, endpoint, host):
    inside = Listener("0.0.0.0")
    try:
        provider.lies[DISCOVERY] = provider.about(**{endpoint: f"https://{host}:{inside.port}/x"})
        refused(Browser(server, provider).sign_in(), 502)
        assert inside.seen == []
    finally:
        inside.close()


def test_name_that_resolves_to_a_private_address_is_not_connected_to(server, provider, monkeypatch):
    inside, real = Listener(), socket.getaddrinfo
    answers = iter([["93.184.216.34"], ["127.0.0.1"]])  # another address at the second look-up

    def resolve(host, port, *args, **options):
        if host != "rebind.example":
            return real(host, port, *args, **options)
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (one, port)) for one in next(answers)]

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    provider.lies[DISCOVERY] = provider.about(jwks_uri=f"https://rebind.example:{inside.port}/jwks")
    try:
        refused(Browser(server, provider).sign_in(), 502)
    finally:
        inside.close()


@pytest.mark.parametrize("path", [DISCOVERY, TOKEN, JWKS])
@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_redirects_of_the_provider_are_not_followed(server, provider, path, status):
    provider.lies[path] = lambda request: send(request, b"", status, Location=f"{provider.issuer}/other")
    provider.lies["/other"] = lambda request: send(request, json.dumps(provider.about()).encode())
    browser = Browser(server, provider)
    refused(browser.look("openid") if path == DISCOVERY else browser.sign_in(), 502)
    assert "/other" not in provider.asked


# -- sizes and times


def endless(request):
    request.send_response(200)
    request.send_header("Content-Type", "application/json")
    request.end_headers()
    with suppress(OSError):
        for _ in range(100):
            request.wfile.write(b'{"a":"' + b" " * MIB)


def announced(request):
    send(request, b"{}", Content_Length=str(100 * MIB))


def bomb(request):
    data = gzip.compress(b" " * (100 * MIB))
    send(request, data, Content_Encoding="gzip")


def bomb_unasked(request):
    send(request, gzip.compress(gzip.compress(b'{"a":1}')), Content_Encoding="gzip, gzip")


RESPONSES = {
    "endless": endless,
    "announced": announced,
    "bomb": bomb,
    "nested bomb": bomb_unasked,
    "no JSON": lambda request: send(request, b"<html><script>alert(1)</script>"),
    "deep JSON": lambda request: send(request, b'{"keys":' + b"[" * 200_000),
    "deep objects": lambda request: send(request, b'{"a":' * 50_000 + b"1" + b"}" * 50_000),
    "long number": lambda request: send(request, b'{"keys":' + b"9" * 400_000 + b"}"),
    "no UTF-8": lambda request: send(request, b'{"a":"\xff\xfe"}'),
    "nothing": lambda request: send(request, b""),
    "a list": lambda request: send(request, b"[1]"),
    "a number": lambda request: send(request, b"1e999"),
    "no HTTP": lambda request: request.wfile.write(b"\x00" * 5000),
    "many headers": lambda request: request.wfile.write(b"HTTP/1.0 200 OK\r\n" + b"X: y\r\n" * 5000 + b"\r\n{}"),
    "long header": lambda request: request.wfile.write(b"HTTP/1.0 200 OK\r\nX: " + b"y" * 200_000 + b"\r\n\r\n{}"),
    "failure": lambda request: send(request, b"<h1>down</h1>", 500),
    "hang up": lambda request: request.connection.shutdown(socket.SHUT_RDWR),
}


@pytest.mark.parametrize("path", [DISCOVERY, TOKEN, JWKS])
@pytest.mark.parametrize("response", RESPONSES)
def test_unusable_response_is_a_failure_of_the_provider(server, provider, path, response):
    provider.lies[path] = RESPONSES[response]
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    browser = Browser(server, provider)
    refused(browser.look("openid") if path == DISCOVERY else browser.sign_in(), 502)
    if response == "endless":
        assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 64 << 10, "KiB"


@pytest.mark.parametrize("response", ["announced", "redirect", "endless", "long header"])
def test_connection_of_an_unusable_response_is_closed_at_once(home, provider, response):
    """It must not wait for the garbage collector: the exception, with its traceback, is still referenced here."""
    closed = threading.Event()

    def respond(request):
        with suppress(OSError):
            if response == "redirect":
                send(request, b"", 302, Location="/other")
            else:
                RESPONSES[response](request)
            request.connection.settimeout(20)
            while request.connection.recv(1024):
                pass
            closed.set()
            return
        closed.set()  # a reset

    provider.lies[DISCOVERY] = respond
    client = OpenId(openid.Provider(provider.issuer, "lmvp", SECRET))
    with pytest.raises(ProviderFailed) as error:
        client.begin("browser", "http://here/openid-back")
    assert closed.wait(10)
    assert error.value.http_status == 502


@pytest.mark.parametrize("status", [400, 401, 403, 418])
def test_error_of_the_provider_is_not_repeated_to_the_browser(server, provider, status):
    said = {"error": "invalid_grant", "error_description": "<script>alert(1)</script>\r\nSet-Cookie: lmvp_session=x"}
    provider.lies[TOKEN] = lambda request: send(request, json.dumps(said).encode(), status)
    answer = Browser(server, provider).sign_in()
    refused(answer, 401)
    assert "alert(1)" not in answer.text
    state = Browser(server, provider).begin()["state"]
    told = "&error=access_denied&error_description=%3Cscript%3Ealert(1)%3C/script%3E%0d%0aSet-Cookie:%20lmvp_session=x"
    answer = Browser(server, provider).look(f"openid-back?state={state}{told}")
    refused(answer, 401)
    assert "alert(1)" not in answer.text


KEY_SETS = {
    "no keys": {"keys": []},
    "no list": {"keys": {"a": 1}},
    "null": {"keys": [None, 1, [], "x"]},
    "no type": {"keys": [{"kid": "1"}, {"kty": ["RSA"]}, {"kty": {"a": 1}}]},
    "bad numbers": {
        "keys": [{"kty": "RSA", "kid": "1", "n": 7, "e": "AQAB"}, {"kty": "EC", "crv": "P-0", "x": "", "y": ""}]
    },
    "huge RSA key": {"keys": [{"kty": "RSA", "kid": "1", "n": "_" * 90_000, "e": "AQAB"}]},
    "huge exponent": {"keys": [{"kty": "RSA", "kid": "1", "n": "{n}", "e": "_" * 340}]},
    "private key without primes": {"keys": [{"kty": "RSA", "kid": "1", "n": "_" * 1366, "e": "AQAB", "d": "_" * 1366}]},
    "weak key": {"keys": [{"kty": "RSA", "kid": "1", "n": "u" * 86, "e": "AQAB"}]},
    "for encryption": {"keys": "{enc}"},
    "even modulus": {"keys": [{"kty": "RSA", "kid": "1", "n": "A" * 342, "e": "AAAA"}]},
}


@pytest.mark.parametrize("keys", KEY_SETS)
def test_unusable_key_set_opens_no_session(server, provider, keys):
    found = json.loads(json.dumps(KEY_SETS[keys]).replace("{n}", KEY.as_dict(private=False)["n"]))
    provider.lies[JWKS] = (
        {"keys": [{**KEY.as_dict(private=False), "use": "enc"}]} if found["keys"] == "{enc}" else found
    )
    begin = time.monotonic()
    refused(Browser(server, provider).sign_in(), 401, 502)
    assert time.monotonic() - begin < 5
    assert made(server) == []


def test_thousands_of_keys_are_not_all_tried(server, provider):
    many = [{**ECKey.generate_key("P-256").as_dict(private=False), "kid": str(n)} for n in range(1, 2)] * 3000
    provider.lies[JWKS] = {"keys": many}
    begin = time.monotonic()
    refused(Browser(server, provider).sign_in(), 401, 502)
    assert time.monotonic() - begin < 5


def trickle(request):
    """Send a byte now and then, for ever: each of them is in time."""
    with suppress(OSError):
        request.wfile.write(b"HTTP/1.0 200 OK\r\nContent-Type: application/json\r\nX-Slow: ")
        while not request.server.ending.wait(0.1):
            request.wfile.write(b"a")


def trickle_body(request):
    with suppress(OSError):
        request.wfile.write(b'HTTP/1.0 200 OK\r\nContent-Length: 100000\r\n\r\n{"a":"')
        while not request.server.ending.wait(0.1):
            request.wfile.write(b"a")


def hang(request):
    request.server.ending.wait(60)


@pytest.mark.parametrize("slow", [trickle, trickle_body, hang])
@pytest.mark.parametrize("path", [DISCOVERY, TOKEN, JWKS])
def test_slow_response_ends_in_time(server, provider, monkeypatch, slow, path):
    monkeypatch.setattr(openid, "_TIMEOUT", 1.0)
    provider.server.ending = provider.ending
    provider.lies[path] = slow
    browser, begin = Browser(server, provider), time.monotonic()
    refused(browser.look("openid") if path == DISCOVERY else browser.sign_in(), 502)
    assert time.monotonic() - begin < 10


def test_sign_ins_that_wait_delay_no_other_request_and_are_bounded(server, provider, monkeypatch):
    monkeypatch.setattr(openid, "_AT_ONCE", openid._THREADS + 4)
    monkeypatch.setattr(openid, "_TIMEOUT", 120.0)  # the provider hangs until the test releases it
    provider.server.ending = provider.ending
    browsers = [Browser(server, provider) for _ in range(openid._AT_ONCE + 12)]
    states = [browser.begin()["state"] for browser in browsers]
    provider.lies[TOKEN] = hang
    with ThreadPoolExecutor(len(browsers)) as threads:
        answers = [
            threads.submit(browser.look, f"openid-back?state={state}&code={CODE}")
            for browser, state in zip(browsers, states, strict=True)
        ]
        while provider.asked.count(TOKEN) < openid._THREADS:
            time.sleep(0.01)
        assert server.root.projects() == []
        assert not any(answer.done() and answer.result().status_code != 429 for answer in answers)
        provider.ending.set()
        found = sorted(answer.result().status_code for answer in answers)
    assert set(found) == {429, 502}
    assert found.count(429) >= 1


def test_failed_discovery_is_not_repeated_at_once(server, provider):
    provider.lies[DISCOVERY] = lambda request: send(request, b"", 500)
    for _ in range(5):
        refused(Browser(server, provider).look("openid"), 502)
    assert provider.asked == [DISCOVERY]


# -- the log


def test_log_has_no_secret_and_no_traceback(server, provider, caplog, monkeypatch):
    caplog.set_level(logging.DEBUG, "lmvp_server")
    monkeypatch.setattr(openid, "_FAILED_FOR", 0.0)
    assert Browser(server, provider).sign_in().status_code == 303
    for path in (TOKEN, JWKS):
        for response in ("no JSON", "hang up", "failure"):
            provider.lies = {path: RESPONSES[response]}
            Browser(server, provider).sign_in()
    provider.lies = {}
    provider.sign = FORGED["foreign key"]
    browser = Browser(server, provider)
    state = browser.begin()["state"]
    refused(browser.look(f"openid-back?state={state}&code={CODE}"), 401)
    for secret in (
        CODE,
        SECRET,
        state,
        provider.nonce,
        "an-access-token",
        browser.cookies.get("lmvp_visitor", "-none-"),
    ):
        assert secret not in caplog.text
    assert "Traceback" not in caplog.text
