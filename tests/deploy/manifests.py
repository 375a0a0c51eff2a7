"""The manifests of deploy/kubernetes, and what of them the daemon is given."""

import tomllib
from pathlib import Path

import yaml

FOLDER = Path(__file__).resolve().parents[2] / "deploy/kubernetes"
EXAMPLES = FOLDER.parent / "examples"
PLACEHOLDER = "<your clientAccountId>"


def documents():
    """Every document, by its kind."""
    found = {}
    for path in sorted([*FOLDER.glob("*.yaml"), *EXAMPLES.glob("*.yaml")]):
        for document in yaml.safe_load_all(path.read_text()):
            assert document["kind"] not in found, f"two of {document['kind']}"
            found[document["kind"]] = document
    return found


def toml(account):
    """The settings in the ConfigMap, for this account."""
    text = documents()["ConfigMap"]["data"]["bearerd.toml"]
    assert text.count(PLACEHOLDER) == 1
    return text.replace(PLACEHOLDER, account)


def settings():
    return tomllib.loads(toml("acct-1"))


def pod():
    return documents()["Deployment"]["spec"]["template"]["spec"]


def sidecar():
    return pod()["initContainers"][0]


def probes():
    return {name: sidecar()[f"{name}Probe"] for name in ("startup", "liveness")}
