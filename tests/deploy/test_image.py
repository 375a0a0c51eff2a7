"""The image's root, with nothing else in it, is enough: names, TLS roots, volumes and an unprivileged user."""

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import unittest
from pathlib import Path

import image
import manifests
import peers

IMAGE = image.REPOSITORY / "target/deploy/image"


class App(unittest.TestCase):
    def app(self, socket, curl):
        """The app's script with this socket and, first in its path, this curl."""
        folder = Path(self.enterContext(tempfile.TemporaryDirectory()))
        (folder / "curl").write_text(f"#!/bin/sh\n{curl}\n")
        (folder / "curl").chmod(0o755)
        app = manifests.pod()["containers"][0]
        command = [*app["command"], app["args"][0].replace("/run/bearerd/http.sock", socket)]
        environment = {**os.environ, "PATH": f"{folder}:{os.environ['PATH']}"}
        running = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment,
                                   start_new_session=True)

        def end():
            # What it left in the background, which a pod's end takes with it.
            with contextlib.suppress(ProcessLookupError):
                os.killpg(running.pid, signal.SIGKILL)
        self.addCleanup(end)
        return running

    def test_the_app_blames_whoever_is_at_fault(self):
        for code, blamed in ((22, "bearerd says why in its log"), (28, "does not answer in time"), (7, "is not there")):
            with self.app("/nowhere", f"exit {code}") as running:
                self.assertIn(blamed, running.stdout.readline())
                running.terminate()
                self.assertEqual(running.wait(timeout=peers.PATIENCE), 0)

    def test_the_app_ends_at_once_while_it_waits_for_a_token(self):
        with self.app("/nowhere", "echo waiting >&2; exec sleep 120") as running:
            self.assertEqual(running.stdout.readline(), "waiting\n")
            running.terminate()
            self.assertEqual(running.wait(timeout=peers.PATIENCE), 0)


class Containerfile(unittest.TestCase):
    def test_the_last_stage_is_empty_but_for_what_the_script_made(self):
        lines = image.instructions()
        stages = [rest for word, rest in lines if word == "FROM"]
        self.assertRegex(stages[0], r"^docker\.io/library/rust:\d+\.\d+\.\d+-slim-bookworm AS build$")
        self.assertEqual(stages[1:], ["scratch"])
        last = lines[lines.index(("FROM", "scratch")):]
        self.assertIn(("COPY", "--from=build /image/ /"), last)
        self.assertIn(("COPY", f"--from=build --chown={image.USER}:{image.USER} /folders/ /var/lib/"), last)
        self.assertIn(("USER", f"{image.USER}:{image.USER}"), last)
        self.assertIn(("ENV", f"PATH={os.path.dirname(image.BINARY)}"), last)
        self.assertIn(("ENTRYPOINT", json.dumps([image.BINARY])), last)
        self.assertIn(("CMD", '["serve"]'), last)

    def test_the_list_of_dependencies_alone_can_be_fetched(self):
        # All of it is at hand since the image was made.
        image.fetch(CARGO_NET_OFFLINE="true")

    def test_the_image_holds_one_program_and_the_roots(self):
        files = {str(path.relative_to(IMAGE)) for path in IMAGE.rglob("*") if path.is_file()}
        self.assertEqual(files, {image.BINARY[1:], image.ROOTS[1:]})
        loaded = subprocess.run(["readelf", "-lWd", IMAGE / image.BINARY[1:]], check=True, capture_output=True, text=True).stdout
        self.assertIn("LOAD", loaded)
        self.assertNotRegex(loaded, "INTERP|NEEDED")


class EmptyRoot(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        if os.geteuid():
            reason = "an empty root and a name server on port 53 need root or user namespaces"
            print(f"cannot run here: every test of EmptyRoot: {reason}", file=sys.stderr, flush=True)
            raise unittest.SkipTest(reason)
        peers.raise_loopback()
        folder = tempfile.TemporaryDirectory()
        cls.addClassCleanup(folder.cleanup)
        cls.ours, cls.others = (peers.Authority(Path(folder.name), name) for name in ("ours", "others"))
        cls.sandbox = cls.enterClassContext(peers.Sandbox(IMAGE / image.BINARY[1:], cls.ours))

    def root(self, names, roots=None):
        """The image's root with the settings of the ConfigMap, a name server, and these roots of trust for its own."""
        toml = manifests.toml(self.sandbox.told["account"])
        root = self.enterContext(image.Root(IMAGE, toml, self.sandbox.keys()))
        root.write("etc/resolv.conf", f"nameserver {names.address}\noptions timeout:1 attempts:1\n")
        if roots:
            root.write(image.ROOTS[1:], roots.roots.read_text())
        return root

    def names(self, *names):
        return self.enterContext(peers.NameServer(names))

    def environment(self):
        """Where Truecaller is, and ports that are free."""
        return {
            "BEARERD_UPSTREAM__BASE_URL": f"https://{peers.NAME}:{self.sandbox.port}",
            "BEARERD_HTTP__LISTEN": "unix:/run/bearerd/http.sock,127.0.0.1:0",
            "BEARERD_GRPC__LISTEN": "unix:/run/bearerd/grpc.sock,127.0.0.1:0",
            "BEARERD_ADMIN__LISTEN": "127.0.0.1:0",
        }

    def daemon(self, root):
        daemon = self.enterContext(peers.Daemon(root, self.environment()))
        self.addCleanup(lambda: self.assertNotRegex("".join(daemon.said), "|".join(self.sandbox.keys().values())))
        return daemon

    def test_it_serves(self):
        names = self.names(peers.NAME)
        root = self.root(names, self.ours)
        before = root.files()
        daemon = self.daemon(root)
        _, first = daemon.ask("unix", "/v1/token", Prefer="wait=30", Accept="text/plain")
        self.assertRegex(first, r"^[!-~]{16,}$")
        self.assertEqual(daemon.ask("http", "/v1/token", Accept="text/plain"), (200, first))
        self.assertIn(peers.NAME, names.asked)
        if os.environ.get("BEARERD_DEPLOY_MAPPED") is None:
            self.assertEqual(set(daemon.user()), {str(image.USER)})
        for name, probe in manifests.probes().items():
            with self.subTest(probe=name):
                self.assertEqual(daemon.ask("admin", probe["httpGet"]["path"])[0], 200)
        scraped = manifests.documents()["PodMonitor"]["spec"]["podMetricsEndpoints"][0]["path"]
        status, metrics = daemon.ask("admin", scraped)
        self.assertEqual(status, 200)
        self.assertIn("bearerd_token_usable 1\n", metrics)
        # As `kubectl exec` would run it, which finds 0.0.0.0 in the settings.
        admin = {"BEARERD_ADMIN__LISTEN": daemon.addresses["admin"].replace("127.0.0.1", "0.0.0.0")}
        said = subprocess.run(**root.command("status"), env={**self.environment(), **admin}, capture_output=True, text=True)
        self.assertEqual(said.returncode, 0, said.stderr)
        self.assertEqual(daemon.stop(), 0)
        self.assertNotIn(first, "".join(daemon.said))
        new = {name for name in root.files() - before if not name.startswith("var/lib/bearerd/")}
        self.assertEqual(new, set(), "a read-only root would have been in the way")

    def test_the_lines_of_the_app_get_a_token(self):
        daemon = self.daemon(self.root(self.names(peers.NAME), self.ours))
        app = manifests.pod()["containers"][0]
        [script] = app["args"]
        inside = daemon.addresses["unix"].removeprefix("unix:")
        self.assertIn(inside, script)
        command = [*app["command"], script.replace(inside, daemon.socket)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as running:
            self.assertRegex(running.stdout.readline(), r"^a token of [1-9]\d+ characters$")
            running.terminate()
            self.assertEqual(running.wait(timeout=peers.PATIENCE), 0)

    def test_a_restarted_container_finds_its_token(self):
        root = self.root(self.names(peers.NAME), self.ours)
        first = self.daemon(root)
        _, token = first.ask("unix", "/v1/token", Prefer="wait=30", Accept="text/plain")
        first.process.kill()
        first.process.wait()
        mints = len(self.sandbox.mints())
        self.assertEqual(self.daemon(root).ask("unix", "/v1/token", Prefer="wait=30", Accept="text/plain"), (200, token))
        self.assertEqual(len(self.sandbox.mints()), mints)

    def test_a_name_in_the_hosts_file_needs_no_dns(self):
        names = self.names()
        root = self.root(names, self.ours)
        root.write("etc/hosts", f"127.0.0.1 {peers.NAME}\n")
        self.assertEqual(self.daemon(root).ask("unix", "/v1/token", Prefer="wait=30")[0], 200)
        self.assertEqual(names.asked, [])

    def refused(self, root):
        """What becomes of the attempts of a daemon that cannot reach Truecaller as it should."""
        mints = len(self.sandbox.mints())
        daemon = self.daemon(root)
        status = daemon.until_trouble("not_sent")
        self.assertEqual(daemon.ask("unix", "/v1/token")[0], 503)
        self.assertEqual(len(self.sandbox.mints()), mints)
        return status["trouble"]["detail"]

    def test_a_name_that_nobody_knows_is_not_sent(self):
        names = self.names()
        root = self.root(names, self.ours)
        self.assertRegex(self.refused(root), "dns error.*(not known|not found|No address)")
        self.assertIn(peers.NAME, names.asked)

    def test_a_certificate_of_another_authority_is_not_sent(self):
        root = self.root(self.names(peers.NAME), self.others)
        self.assertRegex(self.refused(root), "(?i)unknown ?issuer")

    def test_the_image_trusts_the_public_authorities_and_not_ours(self):
        root = self.root(self.names(peers.NAME))
        roots = (root.path / image.ROOTS[1:]).read_text()
        self.assertGreater(len(re.findall("BEGIN CERTIFICATE", roots)), 50)
        self.assertRegex(self.refused(root), "(?i)unknown ?issuer")

    def test_without_roots_it_does_not_start_and_says_why(self):
        root = self.root(self.names(), self.ours)
        (root.path / image.ROOTS[1:]).unlink()
        said = subprocess.run(**root.command("serve"), env=self.environment(), capture_output=True, text=True, timeout=peers.PATIENCE)
        self.assertNotEqual(said.returncode, 0)
        self.assertRegex(said.stderr, "certificate roots")

    def test_the_placeholders_do_not_start(self):
        secret = manifests.documents()["Secret"]["stringData"]
        raw = manifests.documents()["ConfigMap"]["data"]["bearerd.toml"]
        root = self.enterContext(image.Root(IMAGE, raw, secret))
        said = subprocess.run(**root.command("check"), env={}, capture_output=True, text=True)
        self.assertEqual(said.returncode, 78)
        for key in ("upstream.account", "upstream.keys.0.key_id_file", "upstream.keys.0.api_key_file"):
            self.assertIn(key, said.stderr)

    def test_the_settings_of_the_manifest_are_good(self):
        said = subprocess.run(**self.root(self.names()).command("check"), env={}, capture_output=True, text=True)
        self.assertEqual(said.returncode, 0, said.stderr)
        # That fsGroup lets the pod's own group read the keys is nothing to warn of.
        self.assertNotIn("warning", said.stderr)


if __name__ == "__main__":
    unittest.main()
