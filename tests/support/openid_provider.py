"""A provider of OpenID Connect in a thread of this process, honest unless a test lets it lie. It needs Authlib."""

import json
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.util import find_spec
from urllib.parse import parse_qs, urlsplit

if find_spec("authlib"):
    from joserfc import jwt
    from joserfc.jwk import RSAKey

    KEY = RSAKey.generate_key(2048, parameters={"kid": "1"})

DISCOVERY, TOKEN, JWKS = "/.well-known/openid-configuration", "/token", "/jwks"
CODE = "the-code-of-this-sign-in"


class Provider:
    """A provider on a real port. `lies` replaces the response of a path: a document, or a function of the request."""

    def __init__(self):
        provider = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.0"

            def do_GET(self):
                self.fields = {}
                provider.respond(self)

            def do_POST(self):
                body = self.rfile.read(int(self.headers.get("Content-Length", 0))).decode()
                self.fields = {name: values[0] for name, values in parse_qs(body).items()}
                provider.respond(self)

            def log_message(self, *_):
                """Print nothing."""

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.server.handle_error = lambda *_: None  # a client that hangs up is what some tests wait for
        self.issuer = f"http://127.0.0.1:{self.server.server_port}"
        self.thread = threading.Thread(target=self.server.serve_forever, args=(0.01,), daemon=True)
        self.thread.start()
        self.lies, self.asked, self.claims, self.keys = {}, [], {}, [KEY]
        self.nonce, self.name, self.ending = "", f"grace-{self.server.server_port}", threading.Event()
        self.sign = lambda claims: jwt.encode({"alg": "RS256", "kid": "1"}, claims, KEY, algorithms=["RS256"])

    def respond(self, request):
        path = urlsplit(request.path).path
        self.asked.append(path)
        lie = self.lies.get(path)
        if callable(lie):
            lie(request)
            return
        truth = {DISCOVERY: self.about, JWKS: self.key_set, TOKEN: self.token}
        send(request, json.dumps(truth[path]() if lie is None else lie).encode())

    def about(self, **news):
        whole = {
            "issuer": self.issuer,
            "authorization_endpoint": f"{self.issuer}/authorize",
            "token_endpoint": self.issuer + TOKEN,
            "jwks_uri": self.issuer + JWKS,
        }
        return {**whole, **news}

    def key_set(self):
        return {"keys": [key.as_dict(private=False) for key in self.keys]}

    def told(self, **news):
        now = int(time.time())
        whole = {"iss": self.issuer, "aud": "lmvp", "sub": "s-1", "exp": now + 300, "iat": now, "nonce": self.nonce,
                 "preferred_username": self.name}  # fmt: skip
        return {name: value for name, value in {**whole, **self.claims, **news}.items() if value != "-absent-"}

    def token(self):
        return {"access_token": "an-access-token", "token_type": "Bearer", "id_token": self.sign(self.told())}

    def close(self):
        self.ending.set()
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()


def send(request, body, status=200, **headers):
    request.send_response(status)
    for name, value in {"Content-Type": "application/json", "Content-Length": str(len(body)), **headers}.items():
        request.send_header(name.replace("_", "-"), value)
    request.end_headers()
    request.wfile.write(body)
