"""Which crates of the release build must be optimized for speed: those that a read passes through.

Every direct dependency, and every crate below one that is in the table of the profile, is on the read path unless it is named
here, with the reason.
"""

import json
import pathlib
import subprocess
import tomllib

ROOT = pathlib.Path(__file__).resolve().parents[2]

OFF_THE_PATH = {
    "the command line": "clap clap_complete clap_mangen humantime strsim",
    "starting, settings, the record and its lines": "anyhow jiff serde serde_json tempfile thiserror toml tracing-subscriber",
    "mints, and what only a client does": "base64 fastrand futures-channel ipnet reqwest sha2 try-lock want",
    "handshakes, keys and TLS, whose work is ring's assembly": "rustls rustls-platform-verifier rustls-webpki tokio-rustls zeroize",
    "services that no read calls": "prometheus tonic-health tonic-reflection tonic-types",
    "system calls, whose work is the kernel's": "errno libc rustix signal-hook-registry socket2",
    "once a second, or for an error's text": "httpdate once_cell percent-encoding",
    "traits, macros and generic code, compiled with the crate that uses them":
        "equivalent futures-sink futures-task governor hashbrown pin-project prost prost-types sync_wrapper tower-layer "
        "tower-service tracing tracing-core",
}


def graph():
    """The daemon's name, and what each crate of its release build depends on, but for macros."""
    words = ["cargo", "metadata", "--locked", "--format-version", "1", "--filter-platform", host()]
    metadata = json.loads(subprocess.run(words, cwd=ROOT, stdout=subprocess.PIPE, check=True).stdout)
    names = {it["id"]: it["name"] for it in metadata["packages"]}
    macros = {it["id"] for it in metadata["packages"] if any("proc-macro" in target["kind"] for target in it["targets"])}
    below = {}
    for node in metadata["resolve"]["nodes"]:
        normal = [it["pkg"] for it in node["deps"] if any(kind["kind"] is None for kind in it["dep_kinds"])]
        below.setdefault(names[node["id"]], set()).update(names[it] for it in normal if it not in macros)
    return names[metadata["resolve"]["root"]], below


def host():
    said = subprocess.run(["rustc", "-vV"], stdout=subprocess.PIPE, text=True, check=True).stdout
    return next(line.split()[1] for line in said.splitlines() if line.startswith("host:"))


def table():
    package = tomllib.loads((ROOT / "Cargo.toml").read_text())["profile"]["release"]["package"]
    return {name for name, it in package.items() if name != "*" and it["opt-level"] == 3}


def missing(root, below, fast, off):
    """The crates that are on the read path and not in the table."""
    found, todo = set(), sorted(below[root])
    while todo:
        name = todo.pop()
        if name not in found:
            found.add(name)
            todo += below[name] if name in fast else []
    return sorted(found - fast - off)


def judge():
    """What is wrong with the table, in a line; nothing if it is complete."""
    root, below = graph()
    fast, off = table(), set(" ".join(OFF_THE_PATH.values()).split())
    if both := sorted(fast & off):
        return f"in [profile.release.package] and said to be off the read path: {' '.join(both)}"
    if lost := missing(root, below, fast, off):
        return (f"on the read path, and not in [profile.release.package] of Cargo.toml: {' '.join(lost)}; add them there, "
                "or to tests/bench/optimized.py with the reason why no read passes through them")
    return None
