"""Resizes a photo with ImageMagick: the picture is the data_base64 of the event, the smaller JPEG the result."""
import base64
import subprocess

SIDE_MAX = 32


def handler(event, context):
    photo = base64.b64decode(event["data_base64"], validate=True)
    # On stdin and without the name of a format: it is what its first bytes say, and the image's policy.xml allows it.
    size = run("identify", "-format", "%m %w %h\n", "-", photo=photo).decode().splitlines()[0].split()
    small = run("convert", "-", "-thumbnail", f"{SIDE_MAX}x{SIDE_MAX}>", "-quality", "85", "jpeg:-", photo=photo)
    after = run("identify", "-format", "%m %w %h", "-", photo=small).decode().split()
    return {
        "from": {"format": size[0], "width": int(size[1]), "height": int(size[2])},
        "to": {"format": after[0], "width": int(after[1]), "height": int(after[2])},
        "jpeg": base64.b64encode(small).decode(),
    }


def run(*command, photo):
    ended = subprocess.run(command, input=photo, capture_output=True, check=False)
    if ended.returncode != 0:
        raise ValueError(f"{command[0]}: {ended.stderr.decode(errors='replace').strip()}")
    return ended.stdout
