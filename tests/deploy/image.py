"""The root that the image has, made by the steps of deploy/Containerfile, in a folder instead of a builder."""

import os
import re
import shutil
import subprocess
import tempfile
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
CONTAINERFILE = REPOSITORY / "deploy/Containerfile"
BINARY = "/usr/local/bin/bearerd"
ROOTS = "/etc/ssl/certs/ca-certificates.crt"
USER = 65532


def instructions():
    """The lines of the Containerfile, without comments, as (word, rest)."""
    lines = [line.strip() for line in CONTAINERFILE.read_text().splitlines()]
    return [tuple(line.split(None, 1)) for line in lines if line and not line.startswith("#")]


def context():
    """A copy of what .dockerignore lets through to the builder. Cargo goes by the files' times, so they stay as they are."""
    rules = [line for line in (REPOSITORY / ".dockerignore").read_text().split("\n") if line and not line.startswith("#")]
    assert rules[0] == "*" and all(rule.startswith("!") for rule in rules[1:]), f"not a list of what is allowed: {rules}"
    folder = REPOSITORY / "target/deploy/context"
    shutil.rmtree(folder, ignore_errors=True)
    for rule in rules[1:]:
        source, copy = REPOSITORY / rule[1:], folder / rule[1:]
        copy.parent.mkdir(parents=True, exist_ok=True)
        if source.is_dir():
            shutil.copytree(source, copy)
        elif source.exists():
            shutil.copy2(source, copy)
    return folder


def fetch(**environment):
    """The step that fetches all dependencies, in a folder that holds nothing but their list."""
    lines = instructions()
    word, script = lines[lines.index(("COPY", "Cargo.toml Cargo.lock ./")) + 1]
    assert word == "RUN", script
    with tempfile.TemporaryDirectory() as folder:
        for name in ("Cargo.toml", "Cargo.lock"):
            shutil.copy2(REPOSITORY / name, folder)
        subprocess.run(["sh", "-euc", script], cwd=folder, env={**os.environ, **environment}, check=True)


def build():
    """All that the image holds. The release profile takes minutes to link, so BEARERD_PROFILE has to ask for it."""
    image = REPOSITORY / "target/deploy/image"
    shutil.rmtree(image, ignore_errors=True)
    command = next(rest for word, rest in instructions() if word == "RUN" and "build-static" in rest)
    # What stands before it tells the builder which folder to keep.
    script = re.fullmatch(r"(?:--mount=\S+ )*deploy/build-static (\S+)", command)
    assert script and script[1] == "/image", command
    profile = os.environ.get("BEARERD_PROFILE", "dev")
    environment = {**os.environ, "CARGO_TARGET_DIR": str(REPOSITORY / "target")}
    subprocess.run(["deploy/build-static", image, profile], cwd=context(), env=environment, check=True)
    return image


class Root:
    """A folder that a container would have for its root: the image, and what Kubernetes mounts into it."""

    def __init__(self, image, toml, keys):
        self.folder = tempfile.TemporaryDirectory(prefix="bearerd-root-")
        self.path = Path(self.folder.name)
        shutil.copytree(image, self.path, dirs_exist_ok=True)
        self.path.chmod(0o755)
        # As kubelet makes an emptyDir and a Secret under an fsGroup: they are root's, and the group may write or read.
        for volume in ("var/lib/bearerd", "run/bearerd"):
            (self.path / volume).mkdir(parents=True)
            own(self.path / volume, 0o2777)
        self.write("etc/bearerd/bearerd.toml", toml)
        for name, key in keys.items():
            own(self.write(f"run/secrets/bearerd/{name}", key), 0o440)

    def write(self, name, text):
        path = self.path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        path.chmod(0o644)
        return path

    def files(self):
        return {str(path.relative_to(self.path)) for path in self.path.rglob("*")}

    def command(self, *arguments):
        """How to run the program inside, as the image's user where this process may become another one."""
        def enter():
            os.chroot(self.path)
            os.chdir("/")
            if os.environ.get("BEARERD_DEPLOY_MAPPED") is None:
                os.setgroups([])
                os.setgid(USER)
                os.setuid(USER)
        return {"args": [BINARY, *arguments], "preexec_fn": enter}

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.folder.cleanup()


def own(path, mode):
    if os.environ.get("BEARERD_DEPLOY_MAPPED") is None:
        os.chown(path, 0, USER)
    path.chmod(mode)


if __name__ == "__main__":
    # Here, and not in the tests, which are run without a network: the list names crates of other platforms too, which no build on
    # this one downloads.
    fetch()
    build()
