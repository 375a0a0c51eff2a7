"""tests/run on machines that lack something: what it says, asks, installs, waits for and counts."""

import fcntl
import os
import re
import shutil
import subprocess
import sys
import unittest

from machine import APT_GET, BUSY, PATIENCE, TESTS, Machine

INSTALLED = [
    "apt-get -o DPkg::Lock::Timeout=0 update -qq",
    "apt-get -o DPkg::Lock::Timeout=0 install -y -qq --no-install-recommends patch",
]
QUESTION = "Do this now? [y/N]"
BY_HAND = "apt-get install --no-install-recommends patch"


class Script(unittest.TestCase):
    def setUp(self):
        self.machine = self.enterContext(Machine())
        self.addCleanup(lambda: self.assertEqual(self.machine.left_behind(), []))

    def passed(self, code, said):
        self.assertEqual(code, 0, said)
        self.assertRegex(said, r"(?s)killed 3 of 3.*mutations \d+ min \d+ s\r?\n0 could not run here\r?\n.*has passed in \d+ min")

    def test_what_is_missing_is_installed_and_said_without_a_terminal(self):
        code, said = self.machine.run("mutations")
        self.passed(code, said)
        self.assertNotIn(QUESTION, said)
        self.assertIn("install patch: patch is missing", said)
        self.assertIn("== installing patch", said)
        self.assertEqual(self.machine.called(), INSTALLED)

    def test_nothing_is_asked_where_nothing_is_missing(self):
        self.machine.has("patch", shutil.which("true"))
        code, said = self.machine.run_on_a_terminal("mutations")
        self.passed(code, said)
        self.assertNotIn("lacks", said)
        self.assertEqual(self.machine.called(), [])

    def test_a_terminal_is_asked_once_and_a_yes_goes_on(self):
        code, said = self.machine.run_on_a_terminal("mutations", answer=b"y\n")
        self.passed(code, said)
        self.assertEqual(said.count(QUESTION), 1)
        self.assertLess(said.index("install patch: patch is missing"), said.index(QUESTION))
        self.assertEqual(self.machine.called(), INSTALLED)

    def test_anything_else_changes_nothing_and_says_what_to_do_by_hand(self):
        for answer in (b"n\n", b"\n", b"maybe\n", b"\x04"):
            with self.subTest(answer=answer):
                code, said = self.machine.run_on_a_terminal("mutations", answer=answer)
                self.assertEqual(code, 1, said)
                self.assertIn("nothing was changed", said)
                self.assertIn(BY_HAND, said)
                self.assertNotIn("killed", said)
                self.assertEqual(self.machine.called(), [])

    def test_the_question_finds_the_terminal_though_the_output_goes_elsewhere(self):
        code, said = self.machine.run_on_a_terminal("mutations", answer=b"y\n", script='"$0" "$@" >"$HERE/said" 2>&1')
        self.assertEqual(code, 0, said)
        self.assertIn(QUESTION, said)
        self.passed(code, (self.machine.path / "said").read_text())

    def test_nothing_is_asked_with_yes_nor_in_ci(self):
        for arguments, environment in ((["--yes", "mutations"], {}), (["mutations"], {"CI": "true"})):
            with self.subTest(arguments=arguments, environment=environment), Machine() as machine:
                code, said = machine.run_on_a_terminal(*arguments, **environment)
                self.passed(code, said)
                self.assertNotIn(QUESTION, said)
                self.assertEqual(machine.called(), INSTALLED)

    def test_another_package_manager_is_waited_for_and_that_is_said_once(self):
        self.machine.command("apt-get", APT_GET, BUSY)
        (self.machine.path / "busy").write_text("xx")
        code, said = self.machine.run("mutations")
        self.passed(code, said)
        self.assertEqual(said.count("waiting until another package manager has ended"), 1)
        self.assertIn("Could not get lock /var/lib/apt/lists/lock. It is held by process 42 (unattended-upgr)", said)
        # Once it is known that there is something to wait for, apt waits by itself for what it can wait for.
        self.assertEqual(self.machine.called(), [INSTALLED[0].replace("=0", "=5"), INSTALLED[1]])

    def test_it_is_not_waited_for_for_ever(self):
        self.machine.command("apt-get", APT_GET, BUSY)
        (self.machine.path / "busy").write_text("x" * 100)
        code, said = self.machine.run("mutations", TESTS_LOCK_SECONDS="0")
        self.assertEqual(code, 100, said)
        self.assertIn("another package manager was at work for all of 0 s", said)

    def test_what_apt_says_of_anything_else_is_shown(self):
        self.machine.command("apt-get", 'echo "E: Unable to locate package patch" >&2; exit 100')
        code, said = self.machine.run("mutations")
        self.assertEqual(code, 100, said)
        self.assertIn("E: Unable to locate package patch", said)
        self.assertNotIn("waiting", said)

    def test_what_is_installed_and_not_found_is_told(self):
        self.machine.command("apt-get", "")
        code, said = self.machine.run("mutations")
        self.assertEqual(code, 1, said)
        self.assertIn("it was installed, and is still not found", said)

    def test_without_a_package_manager_it_is_said_what_to_install(self):
        (self.machine.bin / "apt-get").unlink()
        for run in (self.machine.run, self.machine.run_on_a_terminal):
            code, said = run("mutations")
            self.assertEqual(code, 1, said)
            self.assertIn("there is no apt-get here", said)
            self.assertIn(BY_HAND, said)
            self.assertNotIn(QUESTION, said)

    def test_only_root_installs(self):
        self.machine.command("id", "echo 1000")
        code, said = self.machine.run("mutations")
        self.assertEqual(code, 1, said)
        self.assertIn("there is no sudo", said)
        self.assertIn(BY_HAND, said)
        self.machine.command("sudo", '"$@"')
        code, said = self.machine.run("mutations")
        self.passed(code, said)
        began = "sudo env LC_ALL=C DEBIAN_FRONTEND=noninteractive apt-get"
        self.assertIn(INSTALLED[1].replace("apt-get -o", f"{began} -o"), self.machine.called())

    def with_services(self):
        """Measuring needs nginx, which Debian starts."""
        for tool in ("wrk", "h2load", "taskset"):
            self.machine.has(tool, shutil.which("true"))
        self.machine.part("bench", "echo killed 3 of 3")

    def test_a_service_is_masked_before_its_package_comes(self):
        self.with_services()
        self.machine.command("systemctl", 'case "$1" in is-system-running) echo degraded; exit 1 ;; esac')
        code, said = self.machine.run("bench")
        self.assertEqual(code, 0, said)
        masked, _, installed = self.machine.called()
        self.assertEqual(masked, "systemctl mask --quiet nginx.service")
        self.assertIn("install -y -qq --no-install-recommends nginx-light", installed)
        self.assertIn("mask nginx.service, which nginx-light would start (`systemctl unmask nginx.service` undoes it)", said)

    def test_a_mask_is_asked_for_too(self):
        self.with_services()
        self.machine.command("systemctl", 'case "$1" in is-system-running) echo running ;; esac')
        code, said = self.machine.run_on_a_terminal("bench", answer=b"n\n")
        self.assertEqual(code, 1, said)
        self.assertLess(said.index("mask nginx.service"), said.index(QUESTION))
        self.assertIn("  systemctl mask nginx.service", said)
        self.assertEqual(self.machine.called(), [])

    def test_nothing_is_masked_where_systemd_starts_nothing(self):
        self.with_services()
        for answers in ("echo offline; exit 1", "exit 1", None):
            if answers:
                self.machine.command("systemctl", answers)
            else:
                (self.machine.bin / "systemctl").unlink()
            (self.machine.bin / "nginx").unlink(missing_ok=True)
            code, said = self.machine.run("bench")
            self.assertEqual(code, 0, said)
            self.assertNotIn("mask", said)

    def test_a_component_of_the_toolchain_is_added_and_asked_for(self):
        for tool in ("npm", "git"):
            self.machine.has(tool, shutil.which("true"))
        self.machine.command("cargo", '[ "$1" != clippy ] || [ -e "$HERE/clippy" ]')
        self.machine.command("rustup", 'touch "$HERE/clippy"')
        code, said = self.machine.run_on_a_terminal("gate", answer=b"n\n")
        self.assertEqual(code, 1, said)
        self.assertIn("  rustup component add clippy", said)
        _, said = self.machine.run("gate")
        self.assertIn("adding clippy to the Rust toolchain", said)
        self.assertEqual(self.machine.called(), ["rustup component add clippy"])
        (self.machine.bin / "rustup").unlink()
        (self.machine.path / "clippy").unlink()
        code, said = self.machine.run("gate")
        self.assertEqual(code, 1, said)
        self.assertIn("cargo clippy is missing: install it with your Rust", said)

    def test_the_compiler_is_taken_from_a_toolchain_of_another_name(self):
        (self.machine.path / "rust-toolchain.toml").write_text('[toolchain]\nchannel = "1.2.3"\n')
        self.machine.command("rustup", 'cat "$HERE/toolchains"')
        self.machine.command("rustc", '[ "$RUSTUP_TOOLCHAIN" = stable-x ] && echo "rustc 1.2.3 (a day)" || echo "rustc 1.2.30 (a day)"')
        (self.machine.bin / "patch").symlink_to(shutil.which("true"))
        for there, said_so in (("nightly-x\nstable-x (active, default)\n", True), ("stable-x\n1.2.3-x\n", False), ("nightly-x\n", False)):
            (self.machine.path / "toolchains").write_text(there)
            code, said = self.machine.run("mutations")
            self.assertEqual(code, 0, said)
            self.assertEqual("rustup has Rust 1.2.3 as stable-x" in said, said_so, said)

    def test_what_is_too_old_is_told_before_anything_is_installed(self):
        self.machine.command("python3", '[ "$1" = --version ] && echo Python 3.9.2 && exit; exit 1')
        code, said = self.machine.run("deploy")
        self.assertEqual(code, 1, said)
        self.assertIn("Python 3.9.2 is too old: 3.11 is needed", said)
        self.assertEqual(self.machine.called(), [])

    def test_what_could_not_run_is_counted_and_repeated_at_the_end(self):
        self.machine.has("patch", shutil.which("true"))
        for code in (0, 7):
            self.machine.script(self.machine.path / "tests/mutations/run", f"""
                echo 'test a ... cannot run here: a: no root'
                echo 'cannot run here: b: no clocks of its own' >&2
                echo 'cannot run here: a: no root'
                exit {code}""")
            ended, said = self.machine.run("mutations")
            self.assertEqual(ended, code, said)
            closing = said[said.index("2 could not run here"):]
            lines = ["2 could not run here", "cannot run here: a: no root", "cannot run here: b: no clocks of its own"]
            self.assertEqual(closing.splitlines()[:3], lines)
            self.assertRegex(closing, "FAILED in mutations after" if code else "has passed in")

    def test_a_process_that_is_left_behind_does_not_keep_it(self):
        self.machine.has("patch", shutil.which("true"))
        self.machine.script(self.machine.path / "tests/mutations/run", 'sleep 600 & echo $! >"$HERE/left"\necho killed 3 of 3')
        with open(self.machine.path / "said", "w+") as said:
            done = subprocess.run([self.machine.path / "tests/run", "mutations"], env=self.machine.environment(), timeout=PATIENCE,
                                  stdin=subprocess.DEVNULL, stdout=said, stderr=said)
            os.kill(int((self.machine.path / "left").read_text()), 9)
            said.seek(0)
            self.passed(done.returncode, said.read())

    def test_it_says_what_there_is(self):
        code, said = self.machine.run("--help")
        self.assertEqual(code, 0, said)
        for arguments in (["nonsense"], ["fresh", "nonsense"], ["fresh", "fresh"], ["--nonsense"]):
            self.assertEqual(self.machine.run(*arguments), (2, said))
        for line in said.splitlines():
            if part := re.match(r"  tests/run (\w+) ", line):
                self.assertIn(f"\nneeds_{part[1]}() {{", (TESTS / "run").read_text())

    def test_a_variable_of_the_shell_does_not_lead_it_astray(self):
        self.machine.has("patch", shutil.which("true"))
        other = self.machine.path / "elsewhere"
        (other / "tests").mkdir(parents=True)
        done = subprocess.run(["tests/run", "mutations"], env=self.machine.environment(CDPATH=str(other)), cwd=self.machine.path,
                              stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        self.passed(done.returncode, done.stdout)


class RealApt(unittest.TestCase):
    """The locks are apt's own, in folders of the test; there is nothing to install, and no network."""

    def held(self, lock):
        with Machine() as machine:
            for folder in ("lists/partial", "cache/archives/partial", "dpkg/updates", "empty"):
                (machine.path / folder).mkdir(parents=True)
            (machine.path / "dpkg/status").touch()
            settings = machine.path / "apt.conf"
            places = {"Dir::State": "", "Dir::State::lists": "lists", "Dir::State::status": "dpkg/status", "Dir::Cache": "cache",
                      "Dir::Etc": "empty", "Dir::Log": "empty"}
            settings.write_text("".join(f'{key} "{machine.path / place}";\n' for key, place in places.items()))
            (machine.bin / "apt-get").unlink()
            machine.has("apt-get", shutil.which("apt-get"))
            with open(machine.path / lock, "w") as file:
                fcntl.lockf(file, fcntl.LOCK_EX)
                process = subprocess.Popen([machine.path / "tests/run", "mutations"], stdin=subprocess.DEVNULL, text=True,
                                           env=machine.environment(APT_CONFIG=str(settings)),
                                           stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
                with process:
                    said = ""
                    for line in process.stdout:
                        said += line
                        if "Could not get lock" in line:
                            self.assertIn(str(machine.path / lock), line)
                            fcntl.lockf(file, fcntl.LOCK_UN)
            self.assertIn("waiting until another package manager has ended", said)
            # It went on, as far as a machine without packages goes.
            self.assertIn("E: Unable to locate package patch", said)

    def test_its_lists_are_waited_for(self):
        self.held("lists/lock")

    def test_dpkg_is_waited_for(self):
        self.held("dpkg/lock-frontend")


if shutil.which("apt-get") is None:
    print("cannot run here: RealApt: there is no apt-get on this machine", file=sys.stderr)
    del RealApt

if __name__ == "__main__":
    unittest.main()
