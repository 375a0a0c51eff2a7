"""The systemd unit is one that systemd takes, shuts in what it should, and agrees with the program and its settings."""

import os
import re
import subprocess
import tempfile
import tomllib
import unittest
from pathlib import Path

import image
import manifests

FOLDER = image.REPOSITORY / "deploy/systemd"
BUILT = image.REPOSITORY / "target/deploy/image" / image.BINARY[1:]


def unit():
    """Every assignment of [Service], in its order; some are written twice."""
    section, found = None, {}
    for line in (FOLDER / "bearerd.service").read_text().splitlines():
        if line.startswith("["):
            section = line
        elif line and not line.startswith("#") and section == "[Service]":
            key, value = line.split("=", 1)
            found.setdefault(key, []).append(value)
    return found


GROUP = "bearerd-callers"


def toml():
    """The settings for an account, with this process's own group in the place of the one that an operator makes."""
    text = (FOLDER / "bearerd.toml").read_text().replace(manifests.PLACEHOLDER, "acct-1")
    return text.replace(f'"{GROUP}"', f'"{os.getegid()}"')


def seconds(text):
    return int(re.fullmatch(r"(\d+)s", text)[1])


class Unit(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = Path(folder.name)

    def analyze(self, *arguments, text=None):
        """What systemd says of the unit, with the program where it was built."""
        path, program = self.folder / "bearerd.service", self.folder / "bearerd"
        if not program.is_symlink():
            program.symlink_to(BUILT)  # whose own path may hold a space
        path.write_text((text or (FOLDER / "bearerd.service").read_text()).replace("/usr/local/bin/bearerd", str(program)))
        return subprocess.run(["systemd-analyze", *arguments, path], capture_output=True, text=True)

    def test_systemd_takes_it_without_a_word(self):
        said = self.analyze("verify", "--man=no")
        self.assertEqual((said.returncode, said.stdout + said.stderr), (0, ""))

    def test_systemd_would_complain(self):
        text = (FOLDER / "bearerd.service").read_text()
        said = self.analyze("verify", "--man=no", text=text.replace("ProtectHome=yes", "ProtectHomes=yes"))
        self.assertIn("ProtectHomes", said.stderr)

    def test_little_is_left_open(self):
        # In tenths. What is left is the network, and the machine's user namespace and /proc, as the unit says.
        self.assertEqual(self.analyze("security", "--offline=true", "--threshold=15").returncode, 0)
        text = (FOLDER / "bearerd.service").read_text()
        for line in ("SystemCallFilter=@system-service\n", "CapabilityBoundingSet=\n", "RestrictNamespaces=yes\n"):
            self.assertIn(line, text)
            said = self.analyze("security", "--offline=true", "--threshold=15", text=text.replace(line, ""))
            self.assertNotEqual(said.returncode, 0, line)

    def test_it_agrees_with_its_settings(self):
        service, written = unit(), tomllib.loads(toml())
        [state], [runtime] = service["StateDirectory"], service["RuntimeDirectory"]
        self.assertEqual(written["record"]["file"]["folder"], f"/var/lib/{state}")
        sockets = [path for path in written["http"]["listen"] if path.startswith("unix:")]
        self.assertEqual([path.rsplit("/", 1)[0] for path in sockets], [f"unix:/run/{runtime}"])
        names = {value.split(":")[0] for value in service["LoadCredential"]}
        [pair] = written["upstream"]["keys"]
        self.assertEqual(set(pair.values()), {f"/run/credentials/bearerd.service/{name}" for name in names})
        self.assertEqual(service["ExecStart"], ["/usr/local/bin/bearerd serve --config /etc/bearerd/bearerd.toml"])
        # The boot id is outside /proc/<pid>, and the budget wants it.
        self.assertFalse({"ProcSubset", "PrivateUsers"} & set(service))

    def check(self, text):
        """What `check` says of these settings, with the files where this test may have them."""
        settings = self.folder / "bearerd.toml"
        # systemd makes it when the service starts.
        settings.write_text(text.replace("/run/bearerd", str(self.folder)))
        for name in ("key_id", "api_key"):
            (self.folder / name).write_text(f"a-{name}")
            (self.folder / name).chmod(0o600)
        environment = {
            "BEARERD_UPSTREAM__KEYS__0__KEY_ID_FILE": str(self.folder / "key_id"),
            "BEARERD_UPSTREAM__KEYS__0__API_KEY_FILE": str(self.folder / "api_key"),
            "BEARERD_RECORD__FILE__FOLDER": str(self.folder / "state"),
        }
        return subprocess.run([BUILT, "check", "--format", "json", "--config", settings], env=environment, capture_output=True, text=True)

    def test_its_settings_are_good_once_the_account_is_written(self):
        said = self.check(toml())
        self.assertEqual(said.returncode, 0, said.stderr)
        self.assertNotIn("warning", said.stderr)
        deadline = re.search(r'"shutdown\.deadline":\s*\{[^}]*"value":\s*"([^"]+)"', said.stdout)
        self.assertIsNotNone(deadline, said.stdout)
        self.assertGreater(seconds(unit()["TimeoutStopSec"][0]), seconds(deadline[1]) + 1)
        said = self.check((FOLDER / "bearerd.toml").read_text())
        self.assertEqual(said.returncode, 78)
        self.assertIn("upstream.account", said.stderr)

    def test_the_second_pair_and_the_group_are_the_same_in_both_files(self):
        service, written = (FOLDER / "bearerd.service").read_text(), (FOLDER / "bearerd.toml").read_text()
        self.assertEqual(unit()["SupplementaryGroups"], [GROUP])
        self.assertIn(f"groupadd --system {GROUP}", service)
        settings = tomllib.loads(written)
        self.assertEqual([settings[section]["socket_group"] for section in ("http", "grpc")], [GROUP, GROUP])
        both = tomllib.loads(re.sub(r"(?m)^#(\[\[|\w+ = )", r"\1", written))
        paths = {path.rsplit("/", 1)[1] for pair in both["upstream"]["keys"] for path in pair.values()}
        loaded = set(re.findall(r"(?m)^#?LoadCredential=(\w+):", service))
        self.assertEqual((paths, len(paths)), (loaded, 4))

    def test_what_does_not_mend_itself_is_not_tried_again(self):
        [codes] = unit()["RestartPreventExitStatus"]
        usage = subprocess.run([BUILT, "serve", "--nonsense"], env={}, capture_output=True).returncode
        settings = subprocess.run([BUILT, "serve", "--config", self.folder / "none.toml"], env={}, capture_output=True).returncode
        self.assertEqual(set(codes.split()), {str(usage), str(settings)})
        self.assertEqual(unit()["Restart"], ["on-failure"])
