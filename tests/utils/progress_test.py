import fcntl
import os
import pty
import struct
import subprocess
import sys
import termios

from fbrc_agent.utils import progress

COUNT = """
import sys, time
from fbrc_agent.utils import progress
bar = progress.make_bar(total=3, initial=1, desc="counting", unit="update")
for _ in range(2):
    time.sleep(0.6)
    bar.update()
bar.set_postfix_str("score 7.0")
bar.close()
"""


def test_a_log_has_a_line_now_and_then(capsys, monkeypatch):
    monkeypatch.setattr(progress, "_LOG_SECONDS", 0.0)
    with progress.make_bar(total=30, initial=10, desc="counting", unit="update") as bar:
        bar.update(10)
        bar.update(10)
    err = capsys.readouterr().err
    assert "\r" not in err
    counts = [line.split(" [")[0].split()[-1] for line in err.splitlines()]
    assert counts[:3] == ["10/30", "20/30", "30/30"]
    assert set(counts[3:]) <= {"30/30"}  # At the end once more.


def test_a_log_has_few_lines(capsys):
    with progress.make_bar(total=1000, desc="counting") as bar:
        for _ in range(1000):
            bar.update()
    first, last = capsys.readouterr().err.splitlines()
    assert "0/1000" in first
    assert "1000/1000" in last


def test_a_score_is_a_line_of_a_log(capsys):
    bar = progress.make_bar(total=10, desc="counting")
    bar.set_postfix_str("score 7.0")
    bar.close()
    first, *rest = capsys.readouterr().err.splitlines()
    assert "score" not in first
    assert rest and all("score 7.0" in line for line in rest)


def test_what_is_drawn_again_is_no_line_of_a_log(capsys):
    bar = progress.make_bar(total=10, desc="counting")
    for text in ("half way", "half way", "there"):
        bar.display(text)
    assert capsys.readouterr().err.splitlines()[1:] == ["half way", "there"]
    bar.close()


def test_what_one_goes_through(capsys):
    assert list(progress.make_bar(iterable=range(5), desc="counting")) == [0, 1, 2, 3, 4]
    assert "5/5" in capsys.readouterr().err.splitlines()[-1]


def test_a_terminal_has_a_bar_that_is_drawn_in_place():
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 100, 0, 0))
    child = subprocess.Popen([sys.executable, "-c", COUNT], stderr=theirs)
    os.close(theirs)
    drawn = b""
    while True:
        try:
            block = os.read(ours, 4096)
        except OSError:  # The other end is closed.
            break
        if not block:
            break
        drawn += block
    os.close(ours)
    assert child.wait() == 0
    *looks, _ = drawn.decode().split("\r\n")
    assert len(looks) == 1
    looks = [look.strip() for look in looks[0].split("\r") if look.strip()]
    for count in ("1/3", "2/3", "3/3"):
        assert any(count in look for look in looks)
    assert "score 7.0" in looks[-1]
