"""ClickHouse's own engine, in this process, behind as much of ClickHouse's HTTP interface as its clients use.

Not the server: one user, no native protocol, no cluster, no compression, and answers are told whole.

    python clickhouse.py PORT FOLDER        with the password of `default` in the environment, CLICKHOUSE_PASSWORD
"""

import base64
import hmac
import os
import re
import signal
import sys
import uuid
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

from chdb import session

USER = "default"
PASSWORD = os.environ["CLICKHOUSE_PASSWORD"]

# What the server's interface says with a status of its own; all else that is refused is a 500.
STATUSES = {47: 404, 60: 404, 81: 404, 62: 400, 456: 400, 457: 400, 516: 403, 159: 408}

# Of the interface, and not of the engine.
RESERVED = {
    "query",
    "database",
    "default_format",
    "query_id",
    "session_id",
    "session_timeout",
    "session_check",
    "user",
    "password",
    "role",
    "quota_key",
    "enable_http_compression",
    "compress",
    "decompress",
    "wait_end_of_query",
    "send_progress_in_http_headers",
    "http_headers_progress_interval_ms",
}


def quoted(text):
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"


class Refused(Exception):
    def __init__(self, code, message):
        super().__init__(message)
        self.code = code


def answer(path, parameters, body):
    """What the engine says, in a session of its own: settings of one request are not those of another."""
    sql = "\n".join(part for part in (parameters.get("query", ""), body) if part)
    its = session.Session(path)
    try:
        database = parameters.get("database", "default")
        if database != "default":
            its.query("use `" + database.replace("`", "``") + "`")
        for name, value in parameters.items():
            if name not in RESERVED and not name.startswith("param_"):
                if not re.fullmatch(r"[a-z][a-z0-9_]*", name):
                    raise Refused(115, f"Code: 115. DB::Exception: Unknown setting {name!r}. (UNKNOWN_SETTING)")
                its.query(f"set {name} = {quoted(value)}")
        given = {name[len("param_") :]: value for name, value in parameters.items() if name.startswith("param_")}
        return its.query(sql, parameters.get("default_format", "TabSeparated"), params=given).bytes()
    except RuntimeError as error:
        message = str(error)
        code = re.search(r"Code: (\d+)", message)
        raise Refused(int(code.group(1)) if code else 1002, message) from None
    finally:
        its.close()


class Interface(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    # An answer's head and body are two writes: without this each costs 40 ms.
    disable_nagle_algorithm = True
    wbufsize = -1

    def log_message(self, *_):
        pass

    def tell(self, status, content, headers=()):
        self.send_response(status)
        for name, value in headers:
            self.send_header(name, value)
        self.send_header("Content-Type", "text/plain; charset=UTF-8")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def credentials(self, parameters):
        scheme, _, encoded = self.headers.get("Authorization", "").partition(" ")
        if scheme == "Basic":
            user, _, password = base64.b64decode(encoded).decode().partition(":")
            return user, password
        return (
            self.headers.get("X-ClickHouse-User", parameters.get("user", USER)),
            self.headers.get("X-ClickHouse-Key", parameters.get("password", "")),
        )

    def refuse(self, code, message):
        self.tell(
            STATUSES.get(code, 500),
            (message + "\n").encode(),
            [("X-ClickHouse-Exception-Code", str(code))],
        )

    def handle_request(self):
        body = self.rfile.read(int(self.headers.get("Content-Length", 0))).decode()
        url = urlsplit(self.path)
        if url.path == "/ping":
            self.tell(200, b"Ok.\n")
            return
        parameters = {
            name: values[-1]
            for name, values in parse_qs(url.query, keep_blank_values=True).items()
        }
        if "X-ClickHouse-Database" in self.headers:
            parameters.setdefault("database", self.headers["X-ClickHouse-Database"])
        user, password = self.credentials(parameters)
        if user != USER or not hmac.compare_digest(password.encode(), PASSWORD.encode()):
            self.refuse(
                516,
                f"Code: 516. DB::Exception: {user}: Authentication failed: password is incorrect, "
                "or there is no user with such name. (AUTHENTICATION_FAILED)",
            )
            return
        try:
            content = answer(self.server.folder, parameters, body)
        except Refused as refused:
            self.refuse(refused.code, str(refused))
            return
        query_id = parameters.get("query_id", str(uuid.uuid4()))
        self.tell(200, content, [("X-ClickHouse-Query-Id", query_id)])

    do_GET = do_POST = do_HEAD = handle_request


class Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128
    folder = ""


def main():
    port, folder = int(sys.argv[1]), sys.argv[2]
    os.makedirs(folder, exist_ok=True)
    # The engine lives as long as its first session does.
    engine = session.Session(folder)
    server = Server(("127.0.0.1", port), Interface)
    server.folder = folder
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    try:
        server.serve_forever()
    finally:
        engine.close()


main()
