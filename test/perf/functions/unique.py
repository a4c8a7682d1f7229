"""Everything that two clones of one template must not have in common, read as the first thing that the handler does."""
import random

EARLY = [random.random(), random.random()]

import hashlib
import os
import secrets
import socket
import ssl
import tempfile
import time
import uuid


def handler(event, context):
    return {
        "unique": {
            "random": str(EARLY),
            "uuid": str(uuid.uuid4()),
            "secrets": secrets.token_hex(16),
            "openssl": ssl.RAND_bytes(16).hex(),
            "urandom": os.urandom(16).hex(),
            "temporary": os.path.basename(tempfile.mktemp()),
            "machineId": open("/etc/machine-id").read().strip(),
            "bootId": open("/proc/sys/kernel/random/boot_id").read().strip(),
            "hostname": socket.gethostname(),
        },
        "clockMillis": int(time.time() * 1000),
        "digest": hashlib.sha256(b"same in every clone").hexdigest(),
    }
