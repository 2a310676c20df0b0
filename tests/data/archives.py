"""Makes compressed IDX files and compressed tars from their contents, for the tests of sources."""

import gzip
import io
import tarfile


def compress_idx(*numbers, content=b""):
    """A compressed IDX file: numbers as big-endian words of 32 bits, then bytes."""
    return gzip.compress(b"".join(number.to_bytes(4, "big") for number in numbers) + content, mtime=0)


def compress_tar(contents):
    """A compressed tar of files: name -> content, or None for a folder."""
    raw = io.BytesIO()
    with tarfile.open(fileobj=raw, mode="w:gz") as tar:
        for name, content in contents.items():
            member = tarfile.TarInfo(name)
            if content is None:
                content = b""
                member.type = tarfile.DIRTYPE
            else:
                member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return raw.getvalue()
