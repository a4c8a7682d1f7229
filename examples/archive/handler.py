"""Opens a suspicious archive: what it really is, what is in it, which members are on the list of known hashes beside
this file, and which match a rule. It may be malicious, and so may what it does to 7zz: that is what the clone is for.
"""
import base64
import hashlib
import os
import subprocess

HERE = os.path.dirname(__file__)
MEMBERS_MAX = 100
STRINGS_MAX = 20


def handler(event, context):
    path, folder = "/tmp/archive", "/tmp/members"
    with open(path, "wb") as file:
        file.write(base64.b64decode(event["data_base64"], validate=True))
    with open(os.path.join(HERE, "hashes.txt"), encoding="ascii") as file:
        listed = dict(line.split(maxsplit=1) for line in file if not line.startswith("#"))
    run("7zz", "x", "-y", "-bd", "-pinfected", f"-o{folder}", path)
    members = [describe(folder, name, listed) for name in names(folder)[:MEMBERS_MAX]]
    wrong = any(member["listed"] or member["rules"] for member in members)
    return {"type": run("file", "--brief", "--mime-type", path).strip(), "verdict": "malicious" if wrong else "unknown",
            "members": members}


def names(folder):
    found = [os.path.relpath(os.path.join(at, name), folder) for at, _, files in os.walk(folder) for name in files]
    return sorted(name for name in found if not os.path.islink(os.path.join(folder, name)))


def describe(folder, name, listed):
    path = os.path.join(folder, name)
    with open(path, "rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    rules = run("yara", "--fail-on-warnings", os.path.join(HERE, "rules.yar"), path).splitlines()
    return {
        "name": name,
        "type": run("file", "--brief", "--mime-type", path).strip(),
        "sha256": digest,
        "listed": listed.get(digest, "").strip(),
        "rules": [line.split(" ", 1)[0] for line in rules],
        "strings": run("strings", "-n", "8", path).splitlines()[:STRINGS_MAX],
    }


def run(*command):
    ended = subprocess.run(command, capture_output=True, check=False)
    if ended.returncode != 0:
        raise ValueError(f"{command[0]}: {ended.stderr.decode(errors='replace').strip()}")
    return ended.stdout.decode(errors="replace")
