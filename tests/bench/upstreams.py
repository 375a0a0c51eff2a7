"""Upstreams that do all they can to a daemon that asks them: `python3 upstreams.py MANNER` prints its port and goes on until it is killed."""

import socket
import struct
import sys
import threading
import time

OK = b"HTTP/1.1 200 OK\r\n"
HINT = b"HTTP/1.1 103 Early Hints\r\n\r\n"

# What is sent first, and what is sent behind it again and again.
FLOODS = {
    "interim answers": (b"", HINT * 2000),
    "interim answers byte by byte": (b"", HINT),
    "headers": (OK, b"X-More: 1\r\n" * 5000),
    "one header": (OK + b"X-More: ", b"a" * 60000),
    "chunks of one byte": (OK + b"Transfer-Encoding: chunked\r\n\r\n", b"1\r\n \r\n" * 10000),
    "a gigabyte": (OK + b"Content-Length: 1073741824\r\n\r\n", b" " * 60000),
}


def flood(manner, stream):
    head, piece = FLOODS[manner]
    stream.sendall(head)
    while True:
        if manner.endswith("byte by byte"):
            for at in range(len(piece)):
                stream.sendall(piece[at : at + 1])
        else:
            stream.sendall(piece)


def drip(stream):
    for byte in OK * 1000:
        stream.sendall(bytes([byte]))
        time.sleep(0.01)


def silence(stream):
    while stream.recv(65536):
        pass


def reset(stream):
    stream.sendall(OK + b"Content-Length: 200\r\n\r\n{")
    stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


MANNERS = {"drip": drip, "silence": silence, "reset": reset, "slam": lambda _: None}
ALL = [*FLOODS, *MANNERS]


def behave(manner, stream):
    with stream:
        stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        try:
            if manner != "slam":
                stream.recv(65536)
            flood(manner, stream) if manner in FLOODS else MANNERS[manner](stream)
        except OSError:
            pass  # the daemon has hung up


def main(manner):
    with socket.create_server(("127.0.0.1", 0)) as listener:
        print(listener.getsockname()[1], flush=True)
        while True:
            stream, _ = listener.accept()
            threading.Thread(target=behave, args=(manner, stream), daemon=True).start()


if __name__ == "__main__":
    main(sys.argv[1])
