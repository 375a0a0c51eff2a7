"""tests/run fresh, in a repository that the test makes, with a cargo and a demo of the test's own."""

import contextlib
import os
import shutil
import socket
import subprocess
import unittest

from machine import TESTS, Machine

# A demo that vends once it has told its address, and ends when it is asked to.
CARGO = """
case "$1" in
  run)
    [ "$*" = "run --release -- demo" ] || echo "$*" >>"$HERE/arguments"
    env >"$HERE/environment"
    echo $$ >"$HERE/demo"
    ls -A "$CARGO_HOME" >"$HERE/home"
    echo "$PWD" >"$HERE/folder"
    trap 'exit 0' INT
    echo "bearerd demo: the daemon and a sandbox"
    echo "  curl http://127.0.0.1:1/v1/token"
    while true; do sleep 0.1; done ;;
  test) echo "test a ... cannot run here: a: no root" ;;
esac
"""


class Fresh(unittest.TestCase):
    def setUp(self):
        self.machine = machine = self.enterContext(Machine())
        for tool in "cp cut du find git ls mkdir tr wc".split():
            machine.has(tool, shutil.which(tool))
        for tool in "openssl readelf systemd-analyze unshare".split():
            machine.has(tool, shutil.which("true"))
        self.cargo(CARGO)
        machine.command("curl", """echo '{"access_token":"a","token_type":"Bearer"}'""")
        shutil.copytree(TESTS / "fresh", machine.path / "tests/fresh")
        machine.part("deploy", "")
        shutil.copy2(TESTS.parent / "README.md", machine.path)

    def cargo(self, script):
        self.machine.command("cargo", script)

    def commit(self):
        git = ["git", "-C", self.machine.path, "-c", "user.name=a", "-c", "user.email=a@localhost"]
        for step in (["init", "--quiet"], ["add", "tests", "README.md"], ["commit", "--quiet", "--allow-empty", "-m", "a"]):
            subprocess.run([*git, *step], check=True, env={"PATH": os.environ["PATH"], "HOME": self.machine.folder.name})

    def run_fresh(self, *arguments, **environment):
        """Commits what is there, and runs it."""
        self.commit()
        ended = self.machine.run("fresh", *arguments, **environment)
        self.assertEqual(list(self.machine.path.glob("target/*")), [], "it is left behind")
        return ended

    def found(self, name):
        return (self.machine.path / name).read_text()

    def fails(self, told, *arguments):
        code, said = self.run_fresh(*arguments)
        self.assertNotEqual(code, 0, said)
        self.assertIn(told, said)
        self.assertIn("FAILED in fresh", said)

    def test_both_commands_run_with_empty_homes_and_their_times_are_told(self):
        self.machine.command("rustup", "echo 1.90-linux '(default)'")
        code, said = self.run_fresh(RUSTFLAGS="-g", CARGO_NET_OFFLINE="true", RUSTC_WRAPPER="sccache", CARGO_HTTP_TIMEOUT="60")
        self.assertEqual(code, 0, said)
        self.assertRegex(said, r"cargo run --release -- demo +\d+ s to the program, \d+ s more to a token, ended by Ctrl-C with 0")
        self.assertRegex(said, r"(?m)^tests/run unit +\d+ s\ntests/run deploy Containerfile +\d+ s$")
        self.assertEqual(self.found("home"), "")
        self.assertRegex(self.found("folder"), r"/target/fresh\.\d+/a clone$")
        variables = self.found("environment").splitlines()
        self.assertIn("RUSTUP_TOOLCHAIN=1.90-linux", variables)
        self.assertIn("RUSTC_WRAPPER=", variables)
        self.assertIn("CARGO_HTTP_TIMEOUT=60", variables)
        self.assertFalse([it for it in variables if it.startswith(("RUSTFLAGS", "CARGO_NET_OFFLINE"))])
        # What could not run in the clone's tests counts here, once.
        self.assertRegex(said, r"(?s)1 could not run here\ncannot run here: a: no root\n\n== all that was asked for has passed in [^\n]*\n$")

    def test_other_tests_can_be_chosen(self):
        code, said = self.run_fresh("unit", "budget")
        self.assertEqual(code, 0, said)
        self.assertRegex(said, r"(?m)^tests/run unit budget +\d+ s$")
        self.assertNotIn("Containerfile", said)

    def test_cargos_own_settings_come_along(self):
        home = self.machine.path / "a home"
        home.mkdir()
        (home / "config.toml").write_text("[net]\n")
        (home / "credentials.toml").write_text("a secret\n")
        code, said = self.run_fresh("unit", CARGO_HOME=str(home))
        self.assertEqual(code, 0, said)
        self.assertEqual(self.found("home"), "config.toml\n")
        self.assertIn("cargo's settings come along", said)

    def test_ports_that_are_taken_are_left_to_whoever_has_them(self):
        with contextlib.ExitStack() as here:
            try:
                here.enter_context(socket.create_server(("127.0.0.1", 7291)))
            except OSError:
                pass  # taken by another one already
            code, said = self.run_fresh("unit")
        self.assertEqual(code, 0, said)
        self.assertIn("the demo gets other ports", said)
        self.assertIn("--http-listen=127.0.0.1:0 --grpc-listen=127.0.0.1:0", self.found("arguments"))

    def test_a_ctrl_c_leaves_nothing_behind(self):
        self.machine.command("curl", "exit 7")
        self.commit()
        code, said = self.machine.run_on_a_terminal("fresh", answer=b"\x03", asked=b"bearerd demo: ")
        self.assertEqual(code, 130, said)
        self.assertIn("FAILED in fresh", said)
        self.assertEqual(list(self.machine.path.glob("target/*")), [])
        with self.assertRaises(ProcessLookupError):
            os.kill(int(self.found("demo")), 0)

    def test_a_demo_that_ends_too_soon_is_told(self):
        self.cargo("[ $1 != run ] || exit 3")
        self.fails("the demo ended before this came true: built")

    def test_a_demo_that_ends_badly_is_told(self):
        self.cargo(CARGO.replace("exit 0", "exit 5"))
        self.fails("the demo ended with 5 after Ctrl-C")

    def test_a_demo_that_leaves_something_behind_is_told(self):
        self.cargo(CARGO.replace("trap", 'touch "$TMPDIR/a-key"; trap'))
        self.fails("the demo left behind: a-key")

    def test_a_readme_that_shows_something_else_is_told(self):
        readme = self.machine.path / "README.md"
        readme.write_text(readme.read_text().replace("cargo run --release -- demo", "cargo run -- demo"))
        self.fails("the README no longer shows: cargo run --release -- demo")

    def test_tests_that_fail_are_told(self):
        self.cargo(CARGO.replace("test) ", "test) exit 9; "))
        self.fails("FAILED in unit", "unit")
