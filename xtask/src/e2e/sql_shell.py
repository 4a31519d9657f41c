"""Drives `aquifer sql` through a terminal as a person would: types, waits for
what is shown, and goes on. Arguments: the binary, the server's URL, a home."""

import os
import pty
import re
import select
import signal
import stat
import sys
import time

binary, url, home = sys.argv[1:4]
DEADLINE = 60.0


class Shell:
    """One run of the shell."""

    def __init__(self):
        self.shown = ""
        self.pid, self.terminal = pty.fork()
        if self.pid == 0:
            environment = {"HOME": home, "TERM": "xterm", "PATH": os.environ["PATH"]}
            os.execve(binary, [binary, "sql", "--url", url], environment)
        import fcntl, struct, termios
        size = struct.pack("HHHH", 40, 80, 0, 0)
        fcntl.ioctl(self.terminal, termios.TIOCSWINSZ, size)
        self.wait("aquifer> ")

    def type(self, text):
        os.write(self.terminal, text.encode())

    def read(self, seconds):
        ready, _, _ = select.select([self.terminal], [], [], seconds)
        if not ready:
            return False
        try:
            data = os.read(self.terminal, 65536)
        except OSError:
            data = b""
        self.shown += re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", data.decode(errors="replace"))
        return bool(data)

    def wait(self, text):
        """What is shown up to `text`, which it waits for."""
        end = time.monotonic() + DEADLINE
        while text not in self.shown:
            left = end - time.monotonic()
            if left <= 0 or (not self.read(left) and text not in self.shown):
                self.kill()
                raise SystemExit(f"{text!r} does not come; shown is\n{self.shown}")
        before, self.shown = self.shown.split(text, 1)
        return before

    def ask(self, text, expected):
        """Types a line and waits for the answer and the next prompt."""
        self.type(text + "\r")
        before = self.wait(expected)
        return before + expected + self.wait("aquifer> ")

    def leave(self, keys):
        self.type(keys)
        while self.read(DEADLINE):
            pass
        _, status = os.waitpid(self.pid, 0)
        if status != 0:
            raise SystemExit(f"the shell ended with {status}: {self.shown}")

    def kill(self):
        os.kill(self.pid, signal.SIGKILL)
        os.waitpid(self.pid, 0)


def check(condition, text):
    if not condition:
        raise SystemExit(f"unexpected: {text}")


shell = Shell()
# A statement over lines, with columns and a footer.
shell.type("select 1 +\r")
shell.ask(" 40 as answer, 'a' as letter;", "(1 row)")
text = shell.ask("select _partition, count(*) as n from events group by 1 order by 1;", "(2 rows)")
check("│" in text and "1000" in text, text)
check(re.search(r"\d+ ms", text), text)
# What is wrong stands under a caret.
text = shell.ask("selekt 1;", "error: ")
check("^" in text and "line 1" in text, text)
# Wide values are cut to the terminal; the other form shows more.
text = shell.ask("select repeat('x', 300) as wide;", "(1 row)")
check("xxx…" in text and max(map(len, text.splitlines())) < 200, text)
shell.ask("\\x", "rows as lists: on")
shell.ask("select 7 as seven, 8 as eight;", "seven │ 7")
shell.ask("\\x", "rows as lists: off")
# Commands.
text = shell.ask("\\d", "events")
check("2,000" in text and "stream" in text, text)
text = shell.ask("\\d events", "_offset")
check("_value" in text, text)
shell.ask("\\timing", "timing: off")
shell.ask("\\nonsense", "no such command")
# Completion: a keyword, and a stream's name.
shell.type("sel\t")
shell.wait("select")
shell.type(" count(*) as whole from eve\t")
shell.wait("events")
shell.ask(";", "2000")
# Ctrl-C cancels what runs, and the shell goes on.
shell.type("select sum(a._offset + b._offset + c._offset) from events a, events b, events c;\r")
shell.wait("Ctrl-C cancels")
shell.type("\x03")
shell.wait("cancelled")
shell.wait("aquifer> ")
shell.ask("select 'still here' as state;", "(1 row)")
# Ctrl-C at the prompt gives the line up.
shell.type("select nonsense\x03")
shell.wait("aquifer> ")
shell.leave("\\q\r")

# What was typed before is there again, for this user alone.
state = os.stat(os.path.join(home, ".local/state/aquifer"))
check(stat.S_IMODE(state.st_mode) == 0o700, oct(state.st_mode))
shell = Shell()
shell.type("\x1b[A\x1b[A")
shell.wait("still here")
shell.type("\r")
shell.wait("(1 row)")
shell.wait("aquifer> ")
shell.leave("\x04")
print("ok")
