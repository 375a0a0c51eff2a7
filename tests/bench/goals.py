"""What bearerd must reach, and how a figure is judged."""

from dataclasses import dataclass

FORMS = {"ratio": "{:.2f}", "MiB": "{:.2f} MiB", "MB": "{:.2f} MB", "KiB": "{:.1f} KiB", "ms": "{:.1f} ms", "percent": "{:.3f} %", "": "{:.0f}"}


@dataclass(frozen=True)
class Goal:
    """A figure, what is measured, and the most that it may be."""

    name: str
    text: str
    most: float
    unit: str

    def written(self, value):
        return FORMS[self.unit].format(value)

    def verdict(self, figures):
        """Judged as it was measured, not as it is written."""
        if figures.get(self.name) is None:
            return "not measured"
        return "met" if figures[self.name] <= self.most else "missed"


GOALS = [
    Goal("http_64", "HTTP read, 64 connections, CPU per request against nginx's constant", 0.95, "ratio"),
    Goal("http_1", "the same, 1 connection", 1.00, "ratio"),
    Goal("http_16", "the same, 16 connections", 1.00, "ratio"),
    Goal("http_256", "the same, 256 connections", 1.00, "ratio"),
    Goal("http_64_hyper", "HTTP read, 64 connections, against bare hyper", 1.06, "ratio"),
    Goal("grpc_64_tonic", "gRPC read, 64 connections, against stock tonic", 0.80, "ratio"),
    Goal("grpc_64_nginx", "gRPC read, 64 connections, against nginx's constant frame", 0.85, "ratio"),
    Goal("grpc_1x32_tonic", "gRPC read, one connection with 32 streams, against stock tonic", 0.80, "ratio"),
    Goal("grpc_16_tonic", "gRPC read, 16 connections, against stock tonic", 0.80, "ratio"),
    Goal("unix_16", "Unix socket against own TCP, 16 connections", 0.85, "ratio"),
    Goal("unix_64", "Unix socket against own TCP, 64 connections", 0.85, "ratio"),
    Goal("resident", "resident, serving, no connections", 6, "MiB"),
    Goal("own_each", "10,000 watchers on their own connections, each", 22, "KiB"),
    Goal("own_tonic", "… from publication to the last one, against stock tonic", 0.85, "ratio"),
    Goal("own_lost", "… lost", 0, ""),
    Goal("shared_each", "10,000 watchers on 100 connections, each", 4.5, "KiB"),
    Goal("shared_last", "… from publication to the last one", 20, "ms"),
    Goal("shared_lost", "… lost", 0, ""),
    Goal("idle_connection", "idle HTTP/1.1 connection", 11.5, "KiB"),
    Goal("listening", "start to listening", 5, "ms"),
    Goal("first_token", "start to the first vended token with a live one on disk", 20, "ms"),
    Goal("upstream_read", "longest read under the worst of ten hostile upstreams, more than under a kind one", 20, "ms"),
    Goal("idle_cpu", "idle CPU, of a core", 0.05, "percent"),
    Goal("binary", "stripped release binary", 6, "MB"),
    Goal("soak_memory", "resident after the second half of a soak, against after its first", 1.05, "ratio"),
    Goal("soak_cost", "CPU per read after the soak, against a new process", 1.05, "ratio"),
]


def table(figures, details, goals=GOALS, unjudged=False):
    """The goals beside the figures, as Markdown. Tiny numbers are not judged."""
    rows = ["| figure | goal | measured | | how |", "|---|--:|--:|---|---|"]
    for goal in goals:
        measured = figures.get(goal.name)
        shown = "–" if measured is None else goal.written(measured)
        verdict = "not judged" if unjudged and measured is not None else goal.verdict(figures)
        rows.append(f"| {goal.text} | ≤ {goal.written(goal.most)} | {shown} | {verdict} | {details.get(goal.name, '')} |")
    return "\n".join(rows)


def all_met(figures, goals=GOALS):
    return all(goal.verdict(figures) == "met" for goal in goals)


def all_measured(figures, goals=GOALS):
    return all(goal.verdict(figures) != "not measured" for goal in goals)
