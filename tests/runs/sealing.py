"""Seals a run folder that a test has changed, as its run would have, by hashlib and json alone."""

import hashlib
import json

DESCRIPTION = ("config.json", "classes.json", "preprocessing.json", "data.json")


def seal_of(content):
    """The size and sha256 of these bytes, as manifests and results hold them."""
    return {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}


def lines_until(workdir, step):
    """The bytes of the lines of metrics.jsonl up to a step."""
    lines = (workdir / "metrics.jsonl").read_bytes().splitlines(keepends=True)
    return b"".join(line for line in lines if json.loads(line)["step"] <= step)


def sealed_result(result):
    """A result with its seal: the sha256 of its canonical JSON without the seal."""
    rest = {key: value for key, value in result.items() if key != "seal"}
    text = json.dumps(rest, sort_keys=True, separators=(",", ":"))
    return rest | {"seal": hashlib.sha256(text.encode()).hexdigest()}


def write_sealed_manifest(path, manifest):
    """Writes a manifest with its seal: the sha256 of its JSON with sorted keys, without the seal."""
    rest = {key: value for key, value in manifest.items() if key != "seal"}
    seal = hashlib.sha256(json.dumps(rest, sort_keys=True).encode()).hexdigest()
    path.write_text(json.dumps(rest | {"seal": seal}, sort_keys=True, indent=1) + "\n")


def reseal(workdir):
    """Seals the files of a run folder as they are now, in the manifest of every checkpoint and in the result."""
    description = {name: seal_of((workdir / name).read_bytes()) for name in DESCRIPTION if (workdir / name).exists()}
    for path in (workdir / "checkpoints").glob("[0-9]*/MANIFEST.json"):
        journal = seal_of(lines_until(workdir, int(path.parent.name)))
        sealed = description | {"metrics.jsonl": journal}
        write_sealed_manifest(path, json.loads(path.read_text()) | {"sealed": sealed})
    path = workdir / "result.json"
    if path.exists():
        sealed = description | {"metrics.jsonl": seal_of((workdir / "metrics.jsonl").read_bytes())}
        result = json.loads(path.read_text())
        path.write_text(json.dumps(sealed_result(result | {"sealed": sealed}), indent=2, sort_keys=True) + "\n")
    return workdir
