"""bin/audit, with a stand-in for pip-audit: what it asks and what its exit codes become."""

import os
import shutil
import subprocess

import pytest

from tests.helpers import tiny_runs

# Answers like pip-audit: what it knows of the version that is vulnerable for sure, then of ours.
_UV = """#!/bin/sh
echo "$@" >>{log}
case "$*" in
  tool*--version*) exit {version_code} ;;
  *vulnerable.txt*) echo "{known}"; exit 1 ;;
  *requirements.txt*) exit {code} ;;
esac
"""


@pytest.fixture
def audit(tmp_path):
    """Runs a copy of bin/audit; returns the exit code, its output and what pip-audit was asked."""

    def run(accepted="# None.\n", known="pyyaml 5.3 PYSEC-2020-96", code=0, version_code=0):
        root, tools, log = tmp_path / "root", tmp_path / "tools", tmp_path / "log"
        for directory in (root / "bin", root / ".ci", tools):
            directory.mkdir(parents=True)
        shutil.copy(tiny_runs.ROOT / "bin" / "audit", root / "bin")
        (root / ".ci" / "accepted_vulnerabilities").write_text(accepted)
        stub = _UV.format(log=log, known=known, code=code, version_code=version_code)
        (tools / "uv").write_text(stub)
        (tools / "uv").chmod(0o755)
        path = f"{tools}:{os.environ['PATH']}"
        done = subprocess.run(
            [root / "bin" / "audit"],
            env={**os.environ, "PATH": path},
            capture_output=True,
            text=True,
        )
        asked = log.read_text().splitlines() if log.exists() else []
        return done.returncode, done.stdout + done.stderr, asked

    return run


def test_every_locked_requirement_is_asked_about(audit):
    code, output, asked = audit()
    assert (code, output) == (0, "")
    assert "--strict --require-hashes -r requirements.txt" in asked[-1]


def test_vulnerability_fails(audit):
    assert audit(code=1)[0] == 1


def test_service_that_knows_nothing_is_told_from_nothing_wrong(audit):
    code, output, asked = audit(known="pyyaml 5.3 could not be audited")
    assert code == 0
    assert output == (
        "audit skipped: no vulnerability service can be asked from here; nothing is known about "
        "requirements.txt.\n"
    )
    assert not any("requirements.txt" in line for line in asked)


def test_pip_audit_that_cannot_be_installed_is_told(audit):
    assert audit(version_code=1)[:2] == (0, "audit skipped: pip-audit cannot be installed here.\n")


def test_accepted_vulnerability_is_passed_on(audit):
    _, _, asked = audit(accepted="# Why.\n\nPYSEC-2024-1 No file of that kind is read.\n")
    assert asked[-1].count("--ignore-vuln") == 1
    assert "--ignore-vuln PYSEC-2024-1 " in asked[-1]


def test_accepted_vulnerability_needs_a_reason(audit):
    code, output, asked = audit(accepted="PYSEC-2024-1\n")
    assert code == 2
    assert "gives no reason for PYSEC-2024-1" in output
    assert not asked


def test_list_of_accepted_vulnerabilities_is_well_formed():
    lines = (tiny_runs.ROOT / ".ci" / "accepted_vulnerabilities").read_text().splitlines()
    for line in lines:
        assert line.startswith("#") or line.split()[0].split("-")[0] in ("PYSEC", "CVE", "GHSA")
