"""Whom a daemon in an empty root talks to: a name server, a Truecaller behind TLS, and its callers. All on loopback."""

import contextlib
import fcntl
import http.client
import json
import queue
import random
import socket
import ssl
import struct
import subprocess
import threading
import time

PATIENCE = 60
NAME = "enterprise.truecaller.test"


def raise_loopback():
    """In a network of its own a process finds loopback down. Where it may not be touched, it is the machine's, and up."""
    request = struct.pack("16sh14x", b"lo", 1 | 64)  # IFF_UP, IFF_RUNNING
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket, contextlib.suppress(PermissionError):
        fcntl.ioctl(any_socket, 0x8914, request)  # SIOCSIFFLAGS


class NameServer:
    """Knows the address of some names, and that there are no others. Remembers what it was asked."""

    def __init__(self, names):
        self.names = names
        self.asked = []
        # A resolver knows no other port, but all of 127.0.0.0/8 is this machine.
        self.address = f"127.53.{random.randrange(256)}.{random.randrange(1, 255)}"
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.socket.bind((self.address, 53))
        self.thread = threading.Thread(target=self.serve, daemon=True)
        self.thread.start()

    def serve(self):
        while True:
            query, peer = self.socket.recvfrom(4096)
            if not query:
                return
            self.socket.sendto(self.answer(query), peer)

    def answer(self, query):
        labels, at = [], 12
        while query[at]:
            labels.append(query[at + 1:at + 1 + query[at]].decode())
            at += 1 + query[at]
        name, kind = ".".join(labels).lower(), struct.unpack(">H", query[at + 1:at + 3])[0]
        self.asked.append(name)
        question, known = query[12:at + 5], name in self.names
        address = kind == 1 and known
        flags = 0x8180 if known else 0x8183
        head = query[:2] + struct.pack(">HHHHH", flags, 1, int(address), 0, 0)
        record = b"\xc0\x0c" + struct.pack(">HHIH", 1, 1, 60, 4) + socket.inet_aton("127.0.0.1")
        return head + question + (record if address else b"")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.socket.sendto(b"", (self.address, 53))
        self.thread.join()
        self.socket.close()


class Authority:
    """A certificate authority that has signed one certificate, for NAME."""

    def __init__(self, folder, name):
        self.roots = folder / f"{name}.pem"
        key, request, extensions = (folder / f"{name}.{end}" for end in ("key", "csr", "ext"))
        self.certificate, self.key = folder / f"{name}.leaf.pem", folder / f"{name}.leaf.key"
        new_key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]
        openssl("req", "-x509", *new_key, "-keyout", key, "-out", self.roots, "-days", "2", "-subj", f"/CN={name}")
        openssl("req", *new_key, "-keyout", self.key, "-out", request, "-subj", f"/CN={NAME}")
        extensions.write_text(f"subjectAltName = DNS:{NAME}\n")
        openssl("x509", "-req", "-in", request, "-CA", self.roots, "-CAkey", key, "-CAcreateserial",
                "-days", "2", "-extfile", extensions, "-out", self.certificate)


def openssl(*arguments):
    done = subprocess.run(["openssl", *map(str, arguments)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


class Sandbox:
    """The built-in Truecaller, and a port where it is reached over TLS."""

    def __init__(self, binary, authority):
        environment = {"BEARERD_SANDBOX__LISTEN": "127.0.0.1:0"}
        self.process = subprocess.Popen([binary, "sandbox"], env=environment, stdout=subprocess.PIPE, text=True)
        self.told = json.loads(self.process.stdout.readline())
        self.address = self.told["base_url"].removeprefix("http://")
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(authority.certificate, authority.key)
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        threading.Thread(target=self.serve, args=[context], daemon=True).start()

    def serve(self, context):
        while True:
            try:
                connection, _ = self.listener.accept()
            except OSError:
                return
            threading.Thread(target=self.pass_on, args=[context, connection], daemon=True).start()

    def pass_on(self, context, connection):
        """One request and its answer, which the sandbox ends by closing."""
        try:
            with context.wrap_socket(connection, server_side=True) as near:
                host, port = self.address.split(":")
                with socket.create_connection((host, int(port))) as far:
                    threading.Thread(target=copy, args=[near, far], daemon=True).start()
                    copy(far, near)
        except (ssl.SSLError, OSError):
            pass  # whoever called does not trust us

    def keys(self):
        return {name: self.told[name] for name in ("key_id", "api_key")}

    def mints(self):
        with Client(self.address) as client:
            return json.loads(client.get("/_sandbox/log"))

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.listener.close()
        self.process.kill()
        self.process.wait()
        self.process.stdout.close()


def copy(one, other):
    try:
        while chunk := one.recv(65536):
            other.sendall(chunk)
        other.shutdown(socket.SHUT_WR)
    except (ssl.SSLError, OSError):
        pass  # one side has gone


class Client:
    """Asks at `host:port` or at the path of a Unix socket."""

    def __init__(self, address):
        self.connection = Unix(address) if address.startswith("/") else http.client.HTTPConnection(address, timeout=PATIENCE)

    def ask(self, path, **headers):
        headers = {"X-Bearerd-Request": "true", **{name.replace("_", "-"): text for name, text in headers.items()}}
        self.connection.request("GET", path, headers=headers)
        answer = self.connection.getresponse()
        return answer.status, answer.read().decode()

    def get(self, path, **headers):
        status, text = self.ask(path, **headers)
        assert status == 200, f"{path}: {status} {text}"
        return text

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.connection.close()


class Unix(http.client.HTTPConnection):
    """HTTP over a Unix socket."""

    def __init__(self, path):
        super().__init__("localhost", timeout=PATIENCE)
        self.path = path

    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(PATIENCE)
        self.sock.connect(self.path)


class Daemon:
    """bearerd in a root. It is there once it has told its addresses; leaving kills it."""

    def __init__(self, root, environment):
        self.process = subprocess.Popen(**root.command("serve"), env=environment, stderr=subprocess.PIPE, text=True)
        self.said, self.lines = [], queue.Queue()
        threading.Thread(target=self.listen, daemon=True).start()
        self.addresses = {}
        while len(self.addresses) < 5:
            line = self.lines.get(timeout=PATIENCE)
            assert line is not None, f"ended before it served: {self.process.wait()}\n{''.join(self.said)}"
            told = json.loads(line)
            if "address" in told:
                unix = told["address"].startswith("unix:")
                kinds = {
                    "vending over HTTP": "unix" if unix else "http",
                    "vending over gRPC": "grpc-unix" if unix else "grpc",
                    "answering operators": "admin",
                }
                self.addresses[kinds[told["message"]]] = told["address"]
        self.socket = str(root.path) + self.addresses["unix"].removeprefix("unix:")

    def listen(self):
        with self.process.stderr as stream:
            for line in stream:
                self.said.append(line)
                self.lines.put(line)
        self.lines.put(None)

    def ask(self, kind, path, **headers):
        with Client(self.socket if kind == "unix" else self.addresses[kind]) as client:
            return client.ask(path, **headers)

    def until_trouble(self, word):
        """What /status says once an attempt has come to this."""
        end = time.monotonic() + PATIENCE
        while True:
            status = json.loads(self.ask("admin", "/status")[1])
            if (status["trouble"] or {}).get("code") == word:
                return status
            assert time.monotonic() < end, f"not until now: {word}; {status}"
            time.sleep(0.01)

    def user(self):
        with open(f"/proc/{self.process.pid}/status") as status:
            return next(line.split()[1:] for line in status if line.startswith("Uid:"))

    def stop(self):
        self.process.terminate()
        return self.process.wait(timeout=PATIENCE)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.kill()
        self.process.wait()
