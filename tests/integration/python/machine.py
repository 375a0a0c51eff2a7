"""A machine that lacks something: a folder with a copy of tests/run and the only commands that it finds."""

import os
import pty
import select
import shutil
import signal
import subprocess
import tempfile
import time
from pathlib import Path

# Whoever starts the tests in the background lets them ignore Ctrl-C, and what they start would, too.
signal.signal(signal.SIGINT, signal.default_int_handler)

TESTS = Path(__file__).resolve().parents[2]
PATIENCE = 120
TOOLS = "bash cat cmp dirname env grep ln mktemp rm sed sleep sort tee touch true".split()

# Makes the commands that come with these packages.
APT_GET = """
[ "$3" = update ] && exit
shift 6
for package; do
  case "$package" in
    nginx-light) made=nginx ;;
    nghttp2-client) made=h2load ;;
    *) made=$package ;;
  esac
  ln -sf "$(command -v true)" "$HERE/bin/$made"
done
"""
# Held by another one as often as the file has letters.
BUSY = """
if [ -s "$HERE/busy" ]; then
  sed -i 's/.//' "$HERE/busy"
  echo "E: Could not get lock /var/lib/apt/lists/lock. It is held by process 42 (unattended-upgr)" >&2
  echo "E: Unable to lock directory /var/lib/apt/lists/" >&2
  exit 100
fi
"""


class Machine:
    """A copy of tests/run, and the commands that it finds. It has what the mutations need, but for `patch`."""

    def __init__(self):
        self.folder = tempfile.TemporaryDirectory(prefix="bearerd-machine-")
        self.path = Path(self.folder.name) / "a machine"
        self.bin = self.path / "bin"
        self.bin.mkdir(parents=True)
        (self.path / "tests").mkdir()
        for name in ("run", "machine.sh"):
            shutil.copy2(TESTS / name, self.path / "tests" / name)
        for tool in TOOLS:
            self.has(tool, shutil.which(tool))
        self.command("id", "echo 0")
        for tool in ("cc", "cargo", "node", "python3"):
            self.command(tool, "[ \"$1\" != -p ] || echo function")
        self.command("apt-get", APT_GET)
        self.part("mutations", "echo killed 3 of 3")

    def has(self, name, path):
        (self.bin / name).symlink_to(path)

    def command(self, name, script, before=""):
        """A command that writes down how it was called."""
        self.script(self.bin / name, f'{before}\nprintf "%s\\n" "{name} $*" >>"$HERE/called"\n{script}')

    def part(self, name, script):
        (self.path / "tests" / name).mkdir()
        self.script(self.path / "tests" / name / "run", script)

    def script(self, path, text):
        path.unlink(missing_ok=True)
        path.write_text(f"#!{shutil.which('bash')}\nset -eu\n{text}\n")
        path.chmod(0o755)

    def called(self):
        path = self.path / "called"
        calls = path.read_text().splitlines() if path.exists() else []
        return [call for call in calls if call.startswith(("apt-get", "systemctl mask", "sudo", "rustup"))]

    def environment(self, **more):
        return {"PATH": str(self.bin), "HERE": str(self.path), "TMPDIR": self.folder.name, **more}

    def run(self, *arguments, **environment):
        """Runs it without a terminal: its exit code, and all it said."""
        done = subprocess.run([self.path / "tests/run", *arguments], env=self.environment(**environment), cwd="/",
                              stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                              timeout=PATIENCE)
        return done.returncode, done.stdout

    def run_on_a_terminal(self, *arguments, answer=b"", asked=b"[y/N] ", script='exec "$0" "$@"', **environment):
        """Runs it with a terminal, where this is typed once that is asked: its exit code, and what the terminal shows."""
        command = [shutil.which("bash"), "-c", script, str(self.path / "tests/run"), *arguments]
        child, terminal = pty.fork()
        if child == 0:
            os.execve(command[0], command, self.environment(**environment))
        shown, end = b"", time.monotonic() + PATIENCE
        try:
            while time.monotonic() < end:
                if not select.select([terminal], [], [], 1)[0]:
                    continue
                piece = os.read(terminal, 65536)
                if not piece:
                    break
                shown += piece
                if asked in shown and answer:
                    os.write(terminal, answer)
                    answer = b""
            else:
                os.kill(child, 9)
        except OSError:
            pass  # Linux says so when the other side has gone
        os.close(terminal)
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), shown.decode()

    def left_behind(self):
        return sorted(path.name for path in Path(self.folder.name).iterdir() if path != self.path)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.folder.cleanup()
