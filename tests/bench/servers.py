"""What is measured, and what it is measured beside."""

import json
import os
import pathlib
import signal
import subprocess
import sys
import time
from datetime import datetime

from proc import Process, connected, free_port

MARK = "X-Bearerd-Request: true"
TOKEN_PATH = "/v1/token"
# At debug each event is told at once; the lines for people are two a minute at most.
LOG_LEVEL = "info,bearerd::keeper=debug"
MINTED = "noted event=Note(Minted("
GET_TOKEN = "/bearerd.v1.TokenService/GetToken"

# As in production, with the real account's lengths.
HOUR = {"lifetime": "60m", "window": "30m", "limit": 10, "extra": ""}

# A token that lives long, and an operator who may have the next one fifty times a second.
ROTATING = {"lifetime": "60m", "window": "300ms", "limit": 1000, "extra": 'reserve = 0\nin_flight = "10s"\n'}

# An attempt takes a second at the most, and an operator may have the next one soon.
HURRIED = {"lifetime": "60m", "window": "8s", "limit": 1000, "extra": 'reserve = 0\nin_flight = "3s"\n'}


def ask(address, path, method="GET"):
    """The status and the body of one answer; the connection is closed behind it."""
    with connected(address) as it:
        it.settimeout(10)
        it.sendall(f"{method} {path} HTTP/1.1\r\nHost: localhost\r\n{MARK}\r\nConnection: close\r\n\r\n".encode())
        answer = b"".join(iter(lambda: it.recv(65536), b""))
    head, _, body = answer.partition(b"\r\n\r\n")
    return int(head.split()[1]), body


class Sandbox(Process):
    """The issuer: bearerd's own emulator."""

    def __init__(self, binary, cpus, scale):
        port = free_port()
        flags = ["--listen", f"127.0.0.1:{port}", "--token-lifetime", scale["lifetime"], "--window", scale["window"], "--limit", scale["limit"]]
        super().__init__([binary, "sandbox", *flags], cpus, out=subprocess.PIPE)
        told = self.child.stdout.readline()
        if not told:
            raise RuntimeError("the sandbox did not start")
        self.told = json.loads(told)


class Hostile(Process):
    """An issuer that answers as one of `upstreams.ALL` does. It takes only the time that others leave."""

    def __init__(self, cpus, manner, sandbox):
        script = pathlib.Path(__file__).with_name("upstreams.py")
        super().__init__(["nice", "-n", "19", sys.executable, "-B", script, manner], cpus, out=subprocess.PIPE)
        port = self.child.stdout.readline().strip()
        self.told = sandbox.told | {"base_url": f"http://127.0.0.1:{port}"}


class Bearerd(Process):
    """The daemon with everything on: HTTP over TCP and a Unix socket, gRPC, health and metrics, a record on disk, the log."""

    def __init__(self, binary, cpus, sandbox, folder, scale=None, only_grpc=False):
        scale = scale or HOUR
        self.folder = pathlib.Path(folder)
        self.folder.mkdir(parents=True, exist_ok=True)
        self.http, self.grpc, self.admin = (f"127.0.0.1:{free_port()}" for _ in range(3))
        self.unix = str(self.folder / "http.sock")
        self.log = self.folder / "log"
        for name in "key_id", "api_key":
            key = self.folder / name
            key.write_text(sandbox.told[name])
            key.chmod(0o600)
        http = [] if only_grpc else [self.http, f"unix:{self.unix}"]
        settings = self.folder / "bearerd.toml"
        settings.write_text(f"""
            [upstream]
            account = "{sandbox.told['account']}"
            base_url = "{sandbox.told['base_url']}"
            token_lifetime = "{scale['lifetime']}"
            [[upstream.keys]]
            key_id_file = "{self.folder}/key_id"
            api_key_file = "{self.folder}/api_key"
            [budget]
            window = "{scale['window']}"
            limit = {scale['limit']}
            {scale['extra']}
            [record.file]
            folder = "{self.folder}/state"
            [http]
            listen = {json.dumps(http)}
            [grpc]
            listen = ["{self.grpc}"]
            [admin]
            listen = ["{self.admin}"]
            [callers.local]
            streams = 20000
            [log]
            level = "{LOG_LEVEL}"
        """)
        with open(self.log, "w") as log:
            super().__init__([binary, "serve", "--config", settings], cpus, out=log, err=log)
        self._told = open(self.log)

    def stop(self):
        self._told.close()
        return super().stop()

    def until_vending(self):
        """Waits for a live token."""
        self._until(lambda: ask(self.admin, "/readyz")[0] == 200, 0.01)

    def until_first_token(self):
        """Seconds from the start to the first answer with a token."""
        return self._until(lambda: ask(self.http, TOKEN_PATH)[0] == 200, 0.0002)

    def _until(self, done, pause):
        while True:
            try:
                if done():
                    return time.perf_counter() - self.began
            except OSError:
                pass
            self.check_alive()
            time.sleep(pause)

    def rotate(self):
        """Brings a new token about, and returns when it has come from the issuer."""
        self._told.read()
        for _ in range(500):
            # "Refreshing" may also be said of the attempt before, and "not now" of its pace.
            ask(self.admin, "/refresh", "POST")
            for _ in range(20):
                minted = [line for line in self._told if MINTED in line]
                if minted:
                    self._minted_at = datetime.fromisoformat(minted[-1].split()[0].replace("Z", "+00:00"))
                    return
                time.sleep(0.001)
        raise RuntimeError(f"no new token: {self.log}")

    def published_at(self):
        """When the last token came from the issuer, by the daemon's own log, in microseconds of Unix time."""
        return self._minted_at.timestamp() * 1e6


class Nginx(Process):
    """One worker that answers two constants: over HTTP/1.1, and as a gRPC frame over HTTP/2."""

    def __init__(self, cpus, folder, body, frame):
        folder = pathlib.Path(folder)
        (folder / "www").mkdir(parents=True, exist_ok=True)
        (folder / "www" / "frame").write_bytes(frame)
        self.http, self.grpc = f"127.0.0.1:{free_port()}", f"127.0.0.1:{free_port()}"
        temporary = "\n".join(f"{kind}_temp_path {folder}/{kind};" for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi"))
        constant = body.decode().strip()
        settings = folder / "nginx.conf"
        # As root, its worker would become somebody who cannot read our folder.
        user = "user root;" if os.geteuid() == 0 else ""
        # nginx serves no file to a POST: the refusal's page is the frame.
        settings.write_text(f"""
            {user} daemon off; worker_processes 1; pid {folder}/pid; error_log {folder}/log crit;
            events {{ worker_connections 12000; multi_accept on; }}
            http {{
              access_log off; server_tokens off; tcp_nodelay on; keepalive_requests 1000000000; keepalive_timeout 1h;
              http2_max_concurrent_streams 1000; {temporary}
              server {{
                listen {self.http} backlog=4096;
                location = {TOKEN_PATH} {{ default_type application/json; add_header cache-control no-store; return 200 '{constant}\n'; }}
              }}
              server {{
                listen {self.grpc} http2 backlog=4096; root {folder}/www; open_file_cache max=10 inactive=1h;
                location = {GET_TOKEN} {{ error_page 405 =200 /frame; return 405; }}
                location = /frame {{
                  internal; default_type application/grpc; etag off; max_ranges 0; if_modified_since off; add_trailer grpc-status 0;
                }}
              }}
            }}
        """)
        super().__init__(["nginx", "-e", folder / "log", "-c", settings], cpus)


class Hyper(Process):
    """Bare hyper with a prebuilt body."""

    def __init__(self, yardstick, cpus, folder, body):
        self.http = f"127.0.0.1:{free_port()}"
        constant = pathlib.Path(folder) / "body"
        constant.write_bytes(body)
        super().__init__([yardstick, "hyper", self.http, constant], cpus)


class Tonic(Process):
    """bearerd's service on stock tonic."""

    def __init__(self, yardstick, cpus, token):
        self.grpc = f"127.0.0.1:{free_port()}"
        super().__init__([yardstick, "tonic", self.grpc, token], cpus, out=subprocess.PIPE)
        self._published_at = None

    def rotate(self):
        """Brings a new token about, and returns once it is published."""
        os.kill(self.pid, signal.SIGUSR1)
        self._published_at = float(self.child.stdout.readline())

    def published_at(self):
        """When the last token was published, in microseconds of Unix time."""
        return self._published_at


def frame(yardstick, token):
    """The answer to GetToken as it goes over the wire."""
    return subprocess.run([yardstick, "frame", token], check=True, capture_output=True).stdout
