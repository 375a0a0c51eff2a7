#!/usr/bin/env bash
# What a Python gRPC caller calls its server when it comes through a Unix socket.
#
# Guess, written before the first run: `:authority` is `localhost`, as curl, Go's gRPC and most others have it where there is no host,
# since a path cannot stand in an authority (RFC 3986, section 3.2).
#
# Seen: grpcio sends the socket's path, percent-encoded. Servers on Rust's h2 refuse such a request with PROTOCOL_ERROR before any
# handler sees it, so that a Python caller fails on a Unix socket that every other client can use. The channel option
# `grpc.default_authority` mends it.
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check grpcio==1.85.1 h2==4.3.0
cat > "$folder/ask.py" <<'PY'
import socket, sys, threading
import grpc, h2.config, h2.connection, h2.events

def authority(path, options):
    """The `:authority` of one call through this socket."""
    seen = []
    server = socket.socket(socket.AF_UNIX)
    server.bind(path)
    server.listen()
    def serve():
        peer, _ = server.accept()
        config = h2.config.H2Configuration(client_side=False, header_encoding="utf-8", validate_inbound_headers=False)
        connection = h2.connection.H2Connection(config)
        connection.initiate_connection()
        peer.sendall(connection.data_to_send())
        while not seen:
            for event in connection.receive_data(peer.recv(65536)):
                if isinstance(event, h2.events.RequestReceived):
                    seen.append(dict(event.headers)[":authority"])
                    connection.send_headers(event.stream_id, [(":status", "200"), ("content-type", "application/grpc"), ("grpc-status", "12")], end_stream=True)
            peer.sendall(connection.data_to_send())
        peer.close()
    thread = threading.Thread(target=serve)
    thread.start()
    with grpc.insecure_channel(f"unix://{path}", options=options) as channel:
        try:
            channel.unary_unary("/a.B/C")(b"", timeout=20)
        except grpc.RpcError:
            pass
    thread.join(20)
    return seen[0]

folder = sys.argv[1]
print("grpcio", grpc.__version__)
usual = authority(f"{folder}/one", [])
mended = authority(f"{folder}/two", [("grpc.default_authority", "localhost")])
print("expected: localhost")
print("seen:    ", usual.replace(folder.lstrip("/").replace("/", "%2F"), "FOLDER"))
print("with grpc.default_authority:", mended)
assert usual == f"{folder}/one".lstrip("/").replace("/", "%2F") or usual == f"{folder}/one".replace("/", "%2F"), usual
assert mended == "localhost", mended
PY
"$folder/venv/bin/python3" "$folder/ask.py" "$folder"
