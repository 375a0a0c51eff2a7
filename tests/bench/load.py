"""Load, and what a request cost the server under it."""

import random
import re
import statistics
import subprocess
import tempfile

import proc
from servers import GET_TOKEN, MARK, TOKEN_PATH

NOTHING_ASKED = b"\0" * 5

# No answer with a token is shorter.
LEAST_ANSWER = 50


class Load:
    """How requests are sent: over what, on how many connections, with how many at a time on each."""

    def __init__(self, kind, connections, streams=1):
        self.kind, self.connections, self.streams = kind, connections, streams

    def command(self, server, length, body):
        if self.kind == "http":
            return ["wrk", "-t1", f"-c{self.connections}", length.replace("-D", "-d"), "-H", MARK, f"http://{server.http}{TOKEN_PATH}"]
        common = ["h2load", "-t1", f"-c{self.connections}", f"-m{self.streams}", length, "-H", MARK]
        if self.kind == "grpc":
            call = ["-d", body, "-H", "content-type: application/grpc", "-H", "te: trailers"]
            return [*common, *call, f"http://{server.grpc}{GET_TOKEN}"]
        over = ["-B", f"unix:{server.unix}"] if self.kind == "unix" else []
        return [*common, "--h1", *over, f"http://{server.http}{TOKEN_PATH}"]

    def once(self, server, cpus):
        """Each connection asks once, and goes."""
        return answered_by_h2load(self.finished(server, f"-n{self.connections}", cpus))

    def run(self, server, seconds, cpus):
        """How many requests were answered. One that failed is an error."""
        told = self.finished(server, f"-D{seconds}", cpus)
        return answered_by_wrk(told) if self.kind == "http" else answered_by_h2load(told)

    def finished(self, server, length, cpus):
        """What the tool says in the end."""
        with tempfile.NamedTemporaryFile() as body:
            body.write(NOTHING_ASKED)
            body.flush()
            command = ["taskset", "-c", cpus, *self.command(server, length, body.name)]
            return subprocess.run(command, capture_output=True, text=True, timeout=90, check=True).stdout


def answered_by_wrk(told):
    if trouble := re.search(r"Non-2xx.*|Socket errors.*", told):
        raise RuntimeError(trouble[0])
    return int(re.search(r"(\d+) requests in", told)[1])


def answered_by_h2load(told):
    counts = re.search(r"requests: \d+ total, \d+ started, (\d+) done, (\d+) succeeded, (\d+) failed", told)
    status = re.search(r"status codes: (\d+) 2xx", told)
    done, succeeded, failed = map(int, counts.groups())
    # A call that gRPC refuses is a 200 without data.
    data = int(re.search(r"\((\d+)\) data", told)[1])
    if failed or done != succeeded or int(status[1]) < done or data < LEAST_ANSWER * done:
        raise RuntimeError(f"{counts[0]}; {status[0]}; {data} bytes of data")
    return done


def cost(server, load, seconds, cpus):
    """CPU microseconds of the server for each request."""
    before = proc.cpu_ns(server.pid)
    requests = load.run(server, seconds, cpus)
    return (proc.cpu_ns(server.pid) - before) / 1e3 / max(1, requests)


def interleaved(servers, loads, rounds, seconds, cpus):
    """Costs by load and server, one for each round: in a round every server has its turn, freshly started, in an order drawn anew.

    `servers` is a dict of functions that start one. What else the machine does, and how its clock runs, meets all servers of a round
    alike; so only what is divided within a round is worth telling.
    """
    costs = {}
    for turn in range(rounds):
        order = list(servers)
        random.Random(turn).shuffle(order)
        for name, load in loads.items():
            for server in order:
                with servers[server]() as it:
                    load.run(it, 1, cpus)  # warm
                    costs.setdefault(name, {}).setdefault(server, []).append(cost(it, load, seconds, cpus))
    return costs


def ratio(costs, load, ours, other):
    """The median over all rounds of what ours cost, divided by what the other cost in the same round."""
    pairs = zip(costs[load][ours], costs[load][other], strict=True)
    return statistics.median(one / another for one, another in pairs)
