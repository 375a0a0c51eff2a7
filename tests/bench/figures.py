"""Everything that is measured. Each function fills in figures, by the names of the goals, and says in a few words how."""

import json
import os
import pathlib
import random
import select
import shutil
import signal
import statistics
import subprocess
import tempfile
import time

import proc
import upstreams
from load import Load, cost, interleaved, ratio
from servers import HOUR, HURRIED, MARK, ROTATING, TOKEN_PATH, Bearerd, Hostile, Hyper, Nginx, Sandbox, Tonic, ask, frame


class Bench:
    """Where things run, how much is measured, and what was found."""

    def __init__(self, options, size, folder):
        self.binary, self.yardstick = options.binary, options.yardstick
        self.server_cpu, self.load_cpu, self.crowd_cpu = options.cpus
        self.size, self.folder = size, pathlib.Path(folder)
        self.figures, self.details, self.raw = {}, {}, {}

    def note(self, name, value, how):
        self.figures[name], self.details[name] = value, how
        print(f"  {name}: {value:.4g} ({how})", flush=True)

    def bearerd(self, sandbox, folder=None, pinned=True, **kinds):
        return Bearerd(self.binary, self.server_cpu if pinned else None, sandbox, folder or self.folder / "live", **kinds)

    def sandbox(self, scale=HOUR):
        return Sandbox(self.binary, None, scale)

    def compare(self, name, servers, loads):
        """Costs of interleaved rounds; the absolute ones are kept beside the results, for what they are worth."""
        costs = interleaved(servers, loads, self.size["rounds"], self.size["seconds"], self.load_cpu)
        self.raw[name] = costs
        for load, by_server in costs.items():
            shown = (f"{server} {statistics.median(them):.2f}" for server, them in by_server.items())
            print(f"  {name}, {load}: µs {', '.join(shown)}", flush=True)
        return costs

    def note_ratio(self, name, costs, load, ours, other):
        how = [f"{server} {statistics.median(costs[load][server]):.2f} µs" for server in (ours, other)]
        self.note(name, ratio(costs, load, ours, other), ", ".join(how))


class Readers:
    """The servers that reads are compared on. All answer with bytes like bearerd's."""

    def __init__(self, bench, sandbox):
        self.bench, self.sandbox = bench, sandbox
        with self.bearerd() as first:
            self.body = ask(first.http, TOKEN_PATH)[1]
        self.token = json.loads(self.body)["access_token"]

    def bearerd(self):
        it = self.bench.bearerd(self.sandbox)
        it.until_vending()
        return it

    def nginx(self):
        constant = frame(self.bench.yardstick, self.token)
        it = Nginx(self.bench.server_cpu, self.bench.folder / "nginx", self.body, constant)
        it.until_listening(it.grpc)
        return it

    def hyper(self):
        it = Hyper(self.bench.yardstick, self.bench.server_cpu, self.bench.folder, self.body)
        it.until_listening(it.http)
        return it

    def tonic(self):
        it = Tonic(self.bench.yardstick, self.bench.server_cpu, self.token)
        it.until_listening(it.grpc)
        return it


def grpc(bench):
    loads = {"64": Load("grpc", 64), "1x32": Load("grpc", 1, 32), "16": Load("grpc", 16)}
    with bench.sandbox() as sandbox:
        readers = Readers(bench, sandbox)
        costs = bench.compare("grpc", {"bearerd": readers.bearerd, "tonic": readers.tonic, "nginx": readers.nginx}, loads)
    bench.note_ratio("grpc_64_tonic", costs, "64", "bearerd", "tonic")
    bench.note_ratio("grpc_64_nginx", costs, "64", "bearerd", "nginx")
    bench.note_ratio("grpc_1x32_tonic", costs, "1x32", "bearerd", "tonic")
    bench.note_ratio("grpc_16_tonic", costs, "16", "bearerd", "tonic")


def http(bench):
    loads = {str(connections): Load("http", connections) for connections in (1, 16, 64, 256)}
    with bench.sandbox() as sandbox:
        readers = Readers(bench, sandbox)
        costs = bench.compare("http", {"bearerd": readers.bearerd, "hyper": readers.hyper, "nginx": readers.nginx}, loads)
    for load in loads:
        bench.note_ratio(f"http_{load}", costs, load, "bearerd", "nginx")
    bench.note_ratio("http_64_hyper", costs, "64", "bearerd", "hyper")


def unix(bench):
    """The same daemon and the same load, over one and over the other."""
    loads = {"16 tcp": Load("tcp", 16), "16 unix": Load("unix", 16), "64 tcp": Load("tcp", 64), "64 unix": Load("unix", 64)}
    with bench.sandbox() as sandbox:
        costs = bench.compare("unix", {"bearerd": Readers(bench, sandbox).bearerd}, loads)
    for connections in 16, 64:
        over = {kind: costs[f"{connections} {kind}"]["bearerd"] for kind in ("unix", "tcp")}
        bench.note_ratio(f"unix_{connections}", {"": over}, "", "unix", "tcp")


def watchers(bench):
    """Many watchers, each on its own connection and on shared ones: what one holds, and when the last one hears."""
    own, shared = bench.size["own"], bench.size["shared"]
    for name, connections, streams in ("own", own, 1), ("shared", shared, bench.size["streams"]):
        rounds = {"bearerd": [], "tonic": []}
        for turn in range(bench.size["crowds"]):
            order = list(rounds)
            random.Random(turn).shuffle(order)
            for server in order:
                rounds[server].append(crowd(bench, server, connections, streams))
        bench.raw[f"watchers {name}"] = rounds
        note_watchers(bench, name, connections, streams, rounds)


def note_watchers(bench, name, connections, streams, rounds):
    def middle(server, what):
        return statistics.median(it[what] for it in rounds[server])

    count = f"{connections * streams:,} on {connections:,}; "
    each = ", ".join(f"{server} {middle(server, 'each'):.1f}" for server in rounds)
    bench.note(f"{name}_each", middle("bearerd", "each"), f"{count}KiB: {each}")
    pairs = zip(rounds["bearerd"], rounds["tonic"], strict=True)
    spent = ", ".join(f"{server} {middle(server, 'last'):.1f} (CPU {middle(server, 'cpu'):.1f})" for server in rounds)
    bench.note(f"{name}_tonic", statistics.median(ours["last"] / other["last"] for ours, other in pairs), f"ms: {spent}")
    bench.note(f"{name}_last", middle("bearerd", "last"), f"the first after {middle('bearerd', 'first'):.1f} ms")
    bench.note(f"{name}_lost", sum(it["lost"] for it in rounds["bearerd"]), f"of {len(rounds['bearerd']) * bench.size['rotations']} rotations")


def crowd(bench, server, connections, streams):
    """One server under a crowd of watchers, and a few rotations.

    The time runs from the publication, which is told by the server. Stock tonic prints it. bearerd logs when the token has come from
    the issuer, and publishes it once its record is written: so the record is in memory here, and its writing is counted in.
    """
    with tempfile.TemporaryDirectory(dir=in_memory()) as folder, bench.sandbox(ROTATING) as sandbox:
        if server == "bearerd":
            it = bench.bearerd(sandbox, folder, scale=ROTATING, only_grpc=True)
            it.until_vending()
            token = None
        else:
            it = Tonic(bench.yardstick, bench.server_cpu, "t" * 43)
            it.until_listening(it.grpc)
        with it:
            idle = proc.settled_memory(it.pid)
            command = [bench.yardstick, "watchers", it.grpc, connections, streams]
            with proc.Process(command, bench.crowd_cpu, out=subprocess.PIPE) as crowd:
                heard(crowd, 120)
                told = [rotation(it, crowd) for _ in range(bench.size["rotations"])]
                full = proc.settled_memory(it.pid)
    found = {what: statistics.median(one[what] for one in told) for what in ("first", "last", "cpu")}
    found["lost"] = sum(one["lost"] for one in told)
    found["each"] = (full["Rss"] - idle["Rss"]) / (connections * streams)
    return found


def in_memory():
    return "/dev/shm" if os.access("/dev/shm", os.W_OK) else None


def heard(crowd, patience):
    """The crowd's next line."""
    if not select.select([crowd.child.stdout], [], [], patience)[0]:
        raise RuntimeError("the watchers say nothing")
    line = crowd.child.stdout.readline()
    if not line:
        raise RuntimeError("the watchers have ended")
    return line


def rotation(server, crowd):
    """Milliseconds from a publication to the first and to the last watcher, and the server's own CPU time."""
    before = proc.cpu_ns(server.pid)
    server.rotate()
    told = json.loads(heard(crowd, 60))
    spent = proc.cpu_ns(server.pid) - before
    published = server.published_at()
    if told["generations"] != 1:
        raise RuntimeError(f"watchers heard of {told['generations']} tokens at once")
    return {
        "first": (told["first"] - published) / 1e3,
        "last": (told["last"] - published) / 1e3,
        "lost": told["lost"],
        "cpu": spent / 1e6,
    }


def resident(bench):
    """What a daemon at rest holds: once everything was used, which is more than before."""
    found = []
    with bench.sandbox() as sandbox:
        for _ in range(bench.size["crowds"]):
            with tempfile.TemporaryDirectory() as folder, bench.bearerd(sandbox, folder) as it:
                it.until_vending()
                fresh = proc.settled_memory(it.pid)
                for address, path in (it.http, TOKEN_PATH), (it.admin, "/metrics"), (it.admin, "/status"), (it.admin, "/readyz"):
                    ask(address, path)
                if shutil.which("h2load"):
                    Load("grpc", 1).run(it, 1, bench.load_cpu)
                found.append((proc.settled_memory(it.pid), fresh))
    found.sort(key=lambda one: one[0]["Rss"])
    used, fresh = found[len(found) // 2]
    parts = f"Pss {used['Pss'] / 1024:.2f}, Anonymous {used['Anonymous'] / 1024:.2f}; Rss before the first request {fresh['Rss'] / 1024:.2f}"
    bench.note("resident", used["Rss"] / 1024, parts)


def idle_connections(bench):
    count = bench.size["idle"]
    with bench.sandbox() as sandbox, bench.bearerd(sandbox) as it:
        it.until_vending()
        before = proc.settled_memory(it.pid)
        sockets = []
        try:
            for _ in range(count):
                sockets.append(proc.connected(it.http))
                sockets[-1].sendall(f"GET {TOKEN_PATH} HTTP/1.1\r\nHost: localhost\r\n{MARK}\r\n\r\n".encode())
                if not sockets[-1].recv(4096).startswith(b"HTTP/1.1 200"):
                    raise RuntimeError("no token for a connection that is to be idle")
            full = proc.settled_memory(it.pid)
        finally:
            for one in sockets:
                one.close()
    bench.note("idle_connection", (full["Rss"] - before["Rss"]) / count, f"{count:,} connections, after one request on each")


def start(bench):
    """Not pinned: the harness looks while the daemon starts."""
    listening, first = [], []
    with bench.sandbox() as sandbox:
        with bench.bearerd(sandbox) as it:
            it.until_vending()
        for _ in range(bench.size["starts"]):
            with bench.bearerd(sandbox, pinned=False) as it:
                listening.append(it.until_listening(it.http) * 1e3)
            with bench.bearerd(sandbox, pinned=False) as it:
                first.append(it.until_first_token() * 1e3)
    for name, times in ("listening", listening), ("first_token", first):
        bench.note(name, statistics.median(times), f"{len(times)} starts, {min(times):.1f} to {max(times):.1f}")


def idle_cpu(bench):
    """With a live token, no callers, and nothing due."""
    with bench.sandbox() as sandbox, bench.bearerd(sandbox) as it:
        it.until_vending()
        time.sleep(1)
        before = proc.cpu_ns(it.pid)
        time.sleep(bench.size["rest"])
        spent = (proc.cpu_ns(it.pid) - before) / 1e6
    bench.note("idle_cpu", spent / 10 / bench.size["rest"], f"{spent:.1f} ms in {bench.size['rest']} s")


def hostile_upstreams(bench):
    """The longest read while attempts meet a hostile upstream, against the longest one while they meet a kind one."""
    kind = "kind"
    longest = {manner: [] for manner in (kind, *upstreams.ALL)}
    with bench.sandbox(HURRIED) as sandbox:
        for turn in range(bench.size["upstream_rounds"]):
            order = list(longest)
            random.Random(turn).shuffle(order)
            for manner in order:
                folder = bench.folder / f"upstream-{turn}-{order.index(manner)}"
                # It finds the token in its record when it meets the upstream.
                with bench.bearerd(sandbox, folder, scale=HURRIED) as it:
                    it.until_vending()
                if manner == kind:
                    longest[manner].append(longest_read(bench, sandbox, folder))
                    continue
                with Hostile(bench.crowd_cpu, manner, sandbox) as upstream:
                    longest[manner].append(longest_read(bench, upstream, folder))
    bench.raw["hostile upstreams"] = longest
    # What else the machine does lengthens a read in one round or another; what an upstream does, in all of them.
    quietest = {manner: min(times) for manner, times in longest.items()}
    worst = max(upstreams.ALL, key=quietest.get)
    print("  " + ", ".join(f"{manner} {time:.1f} ms" for manner, time in quietest.items()), flush=True)
    rounds = bench.size["upstream_rounds"]
    how = f"the quietest of {rounds} rounds, one core for the daemon: kind {quietest[kind]:.1f} ms, {worst} {quietest[worst]:.1f} ms"
    bench.note("upstream_read", quietest[worst] - quietest[kind], how)


def longest_read(bench, upstream, folder):
    """Milliseconds. An operator wants a new token all the time, so that one attempt follows the other."""
    request = f"GET {TOKEN_PATH} HTTP/1.1\r\nHost: localhost\r\n{MARK}\r\n\r\n".encode()
    with bench.bearerd(upstream, folder, scale=HURRIED) as it:
        it.until_vending()
        everywhere = os.sched_getaffinity(0)
        os.sched_setaffinity(0, {int(bench.crowd_cpu)})
        try:
            with proc.connected(it.http) as reader:
                longest, end, next_refresh = 0, time.perf_counter() + bench.size["upstream_seconds"], 0
                while (asked := time.perf_counter()) < end:
                    if asked >= next_refresh:
                        ask(it.admin, "/refresh", "POST")
                        next_refresh = asked + 0.1
                        continue
                    reader.sendall(request)
                    if not reader.recv(4096).startswith(b"HTTP/1.1 200"):
                        raise RuntimeError("no token beside an attempt")
                    longest = max(longest, time.perf_counter() - asked)
                    time.sleep(0.001)
        finally:
            os.sched_setaffinity(0, everywhere)
    return longest * 1e3


def binary(bench):
    bench.note("binary", os.path.getsize(bench.binary) / 1e6, "as built")


def soak(bench):
    """Rotations and callers that come and go: neither memory nor the cost of a read may grow with how many there were."""
    rotations, callers = bench.size["soak_rotations"], bench.size["soak_callers"]
    with tempfile.TemporaryDirectory() as folder, bench.sandbox(ROTATING) as sandbox:
        with bench.bearerd(sandbox, f"{folder}/old", scale=ROTATING) as old:
            old.until_vending()
            held = []
            for _ in range(2):
                busy_life(bench, old, rotations // 2, callers // 2)
                held.append(proc.settled_memory(old.pid)["Rss"])
            how = f"{rotations:,} rotations, {callers:,} past connections each over HTTP and gRPC: {held[0]} KiB, then {held[1]}"
            bench.note("soak_memory", held[1] / held[0], how)
            costs = {"old": [], "new": []}
            for turn in range(bench.size["rounds"]):
                with bench.bearerd(sandbox, f"{folder}/new", scale=ROTATING) as new:
                    new.until_vending()
                    pair = [("old", old), ("new", new)]
                    random.Random(turn).shuffle(pair)
                    for name, server in pair:
                        Load("http", 64).run(server, 1, bench.load_cpu)
                        costs[name].append(cost(server, Load("http", 64), bench.size["seconds"], bench.load_cpu))
    bench.raw["soak"] = costs
    bench.note_ratio("soak_cost", {"": costs}, "", "old", "new")


def busy_life(bench, server, rotations, callers):
    """So many new tokens; and connections that come, ask once, and go, over HTTP and over gRPC."""
    for _ in range(rotations):
        server.rotate()
    for _ in range(callers):
        ask(server.http, TOKEN_PATH)
    for _ in range(max(1, callers // 500)):
        Load("grpc", 500).once(server, bench.load_cpu)


WITH_YARDSTICKS = {"grpc": grpc, "http": http, "watchers": watchers}
WITH_TOOLS = {"unix": unix, "soak": soak}
WITHOUT_TOOLS = {
    "resident": resident, "idle_connections": idle_connections, "start": start, "hostile_upstreams": hostile_upstreams,
    "binary": binary, "idle_cpu": idle_cpu,
}
PARTS = WITH_YARDSTICKS | WITH_TOOLS | WITHOUT_TOOLS
