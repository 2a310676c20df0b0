"""Packed IDX files and packed tars, from their contents."""

import gzip
import io
import tarfile


def packed(*numbers, content=b""):
    """A packed IDX file: big-endian words, then bytes."""
    return gzip.compress(b"".join(number.to_bytes(4, "big") for number in numbers) + content, mtime=0)


def archive(contents):
    """A packed tar of files by name."""
    raw = io.BytesIO()
    with tarfile.open(fileobj=raw, mode="w:gz") as tar:
        for name, content in contents.items():
            if content is None:
                member, content = tarfile.TarInfo(name), b""
                member.type = tarfile.DIRTYPE
            else:
                member = tarfile.TarInfo(name)
                member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return raw.getvalue()
