"""An authorization server of another library, on this machine."""

from __future__ import annotations

import base64
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

from oauthlib import oauth2

SECRET = "client-secret-0123456789"


class Validator(oauth2.RequestValidator):
    """What the server knows: one client, codes, and tokens."""

    def __init__(self) -> None:
        self.codes: dict[str, dict[str, Any]] = {}
        self.access: dict[str, Any] = {}
        self.refresh: dict[str, Any] = {}

    def validate_client_id(self, client_id, request, *args, **kwargs):
        return client_id == "crm"

    def validate_redirect_uri(self, client_id, redirect_uri, request, *args, **kwargs):
        return redirect_uri.startswith("http://127.0.0.1:")

    def validate_response_type(self, client_id, response_type, client, request, *args, **kwargs):
        return response_type == "code"

    def validate_scopes(self, client_id, scopes, client, request, *args, **kwargs):
        return set(scopes) <= {"read", "write"}

    def get_default_scopes(self, client_id, request, *args, **kwargs):
        return ["read"]

    def is_pkce_required(self, client_id, request):
        return True

    def save_authorization_code(self, client_id, code, request, *args, **kwargs):
        self.codes[code["code"]] = {
            "challenge": request.code_challenge,
            "method": request.code_challenge_method,
            "redirect_uri": request.redirect_uri,
            "scopes": request.scopes,
        }

    def get_code_challenge(self, code, request):
        return self.codes[code]["challenge"]

    def get_code_challenge_method(self, code, request):
        return self.codes[code]["method"]

    def client_authentication_required(self, request, *args, **kwargs):
        return True

    def authenticate_client(self, request, *args, **kwargs):
        words = request.headers.get("Authorization", "").split()
        right = base64.b64encode(f"crm:{SECRET}".encode()).decode()
        if words != ["Basic", right]:
            return False
        request.client = type("Client", (), {"client_id": "crm"})()
        return True

    def validate_code(self, client_id, code, client, request, *args, **kwargs):
        if code not in self.codes:
            return False
        request.scopes, request.user = self.codes[code]["scopes"], "ada"
        return True

    def confirm_redirect_uri(self, client_id, code, redirect_uri, client, request, *a, **k):
        return self.codes[code]["redirect_uri"] == redirect_uri

    def validate_grant_type(self, client_id, grant_type, client, request, *args, **kwargs):
        return True

    def save_bearer_token(self, token, request, *args, **kwargs):
        self.access[token["access_token"]] = request.scopes
        if "refresh_token" in token:
            self.refresh.pop(request.refresh_token, None)
            self.refresh[token["refresh_token"]] = request.scopes

    def invalidate_authorization_code(self, client_id, code, request, *args, **kwargs):
        self.codes.pop(code)

    def validate_refresh_token(self, refresh_token, client, request, *args, **kwargs):
        return refresh_token in self.refresh

    def get_original_scopes(self, refresh_token, request, *args, **kwargs):
        return self.refresh[refresh_token]

    def validate_bearer_token(self, token, scopes, request):
        return token in self.access


class AuthorizationServer:
    """It listens; *answers* stand in for its token endpoint where a test wants trouble."""

    def __init__(self) -> None:
        self.validator = Validator()
        self.oauth = oauth2.Server(self.validator, token_expires_in=3600)
        self.grants: list[str] = []
        self.trouble: tuple[int, bytes] | None = None
        self.forms: list[dict[str, list[str]]] = []
        self.moved: tuple[int, str] | None = None
        self.denies = False
        self.served = 0
        self.last_token = ""
        self.gate: threading.Event | None = None
        server = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def handle_any(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0)).decode()
                request = (self.url(), self.command, body, dict(self.headers))
                path = urlsplit(self.path).path
                if path == "/authorize":
                    if server.denies:
                        back = parse_qs(urlsplit(self.path).query)
                        where = f"{back['redirect_uri'][0]}?error=access_denied&state={back['state'][0]}"
                        return self.reply({"Location": where}, "", 302)
                    scopes, _ = server.oauth.validate_authorization_request(*request)
                    return self.reply(
                        *server.oauth.create_authorization_response(*request, scopes, {})
                    )
                if path == "/token":
                    server.forms.append(parse_qs(body))
                    server.grants.append(parse_qs(body)["grant_type"][0])
                    if server.moved is not None:
                        return self.reply({"Location": server.moved[1]}, "", server.moved[0])
                    if server.trouble is not None:
                        status, content = server.trouble
                        return self.reply({}, content.decode(), status)
                    return self.reply(*server.oauth.create_token_response(*request))
                valid, _ = server.oauth.verify_request(*request, [])
                server.served += valid
                server.last_token = self.headers.get("Authorization", "").partition(" ")[2]
                self.reply({}, json.dumps({"me": "ada"}), 200 if valid else 401)

            do_GET = do_POST = handle_any

            def url(self) -> str:
                return f"{server.url}{self.path}"

            def reply(self, headers: Any, body: str | None, status: int) -> None:
                content = (body or "").encode()
                self.send_response(status)
                for name, value in {"Content-Type": "application/json", **headers}.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, *args: Any) -> None:
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.http.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.http.server_address[1]}"
        threading.Thread(target=self.http.serve_forever, args=(0.02,), daemon=True).start()

    def expire(self) -> None:
        """Take no access token that was given out before."""
        self.validator.access.clear()

    def revoke(self) -> None:
        self.expire()
        self.validator.refresh.clear()
