"""Processes: where they run, what they cost, and what they hold in memory."""

import os
import pathlib
import signal
import socket
import subprocess
import time

FAMILY = {True: socket.AF_UNIX, False: socket.AF_INET}
START_LIMIT = 60.0


def free_port():
    with socket.socket() as it:
        it.bind(("127.0.0.1", 0))
        return it.getsockname()[1]


def connected(address):
    """A connection to "host:port" or to the path of a Unix socket."""
    unix = address.startswith("/")
    it = socket.socket(FAMILY[unix], socket.SOCK_STREAM)
    try:
        host, _, port = address.rpartition(":")
        it.connect(address if unix else (host, int(port)))
    except OSError:
        it.close()
        raise
    return it


def tree(pid):
    """The process and all its descendants: some servers work in a child."""
    found, left = [], [pid]
    while left:
        found.append(left.pop())
        for children in pathlib.Path(f"/proc/{found[-1]}/task").glob("*/children"):
            try:
                left += map(int, children.read_text().split())
            except OSError:
                pass  # it has ended
    return found


def cpu_ns(pid):
    """The CPU time of a tree of processes so far, by the scheduler's own count, in nanoseconds."""
    total = 0
    for one in tree(pid):
        for counts in pathlib.Path(f"/proc/{one}/task").glob("*/schedstat"):
            try:
                total += int(counts.read_text().split()[0])
            except OSError:
                pass
    return total


def memory(pid):
    """What a tree of processes has resident, in KiB: all of it, its share of what is shared, and what is its own."""
    total = {"Rss": 0, "Pss": 0, "Anonymous": 0}
    for one in tree(pid):
        for line in pathlib.Path(f"/proc/{one}/smaps_rollup").read_text().splitlines():
            name, _, rest = line.partition(":")
            if name in total:
                total[name] += int(rest.split()[0])
    return total


def settled_memory(pid):
    """Memory once it has stopped to move, for two looks a quarter of a second apart; after five seconds, as it is."""
    last = memory(pid)
    for _ in range(20):
        time.sleep(0.25)
        now = memory(pid)
        if abs(now["Rss"] - last["Rss"]) < 16:
            return now
        last = now
    return last


class Process:
    """A child on given CPUs, ended when its `with` ends."""

    def __init__(self, command, cpus, out=subprocess.DEVNULL, err=subprocess.DEVNULL, stdin=None):
        self.command = [str(word) for word in command]
        self.began = time.perf_counter()
        pin = ["taskset", "-c", cpus] if cpus else []
        self.child = subprocess.Popen(pin + self.command, stdin=stdin, stdout=out, stderr=err, start_new_session=True, text=True)
        self.pid = self.child.pid

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.stop()

    def until_listening(self, address, pause=0.0002):
        """Seconds from the start to the first connection."""
        while True:
            try:
                connected(address).close()
                return time.perf_counter() - self.began
            except OSError:
                self.check_alive()
                time.sleep(pause)

    def check_alive(self, limit=START_LIMIT):
        if self.child.poll() is not None:
            raise RuntimeError(f"it ended with {self.child.returncode}: {' '.join(self.command)}")
        if time.perf_counter() - self.began > limit:
            raise RuntimeError(f"not ready within {limit:.0f} s: {' '.join(self.command)}")

    def stop(self):
        for how, patience in (signal.SIGTERM, 15), (signal.SIGKILL, 15):
            try:
                os.killpg(self.pid, how)
            except ProcessLookupError:
                pass
            try:
                return self.child.wait(patience)
            except subprocess.TimeoutExpired:
                continue
        raise RuntimeError(f"it does not end: {' '.join(self.command)}")
