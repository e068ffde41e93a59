"""Generate the committed stubs beside their ``.proto`` files, or check that they are in sync.

    python protos/generate.py           # write them
    python protos/generate.py --check   # exit 1 where a committed stub differs

One generator only (grpc_tools.protoc with mypy-protobuf), because others emit other bytes.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from grpc_tools import protoc

ROOT = Path(__file__).resolve().parent
PACKAGE = ROOT / "fermata" / "v1"
WELL_KNOWN = Path(protoc.__file__).parent / "_proto"
SUFFIXES = ("_pb2.py", "_pb2.pyi", "_pb2_grpc.py", "_pb2_grpc.pyi")


def generate(out: Path) -> None:
    """Write the stubs of all protos under ``out``.

    :raises SystemExit: where protoc refuses a file; it has printed why.
    """
    protos = sorted(str(path.relative_to(ROOT)) for path in PACKAGE.glob("*.proto"))
    arguments = [
        "protoc",
        f"-I{ROOT}",
        f"-I{WELL_KNOWN}",
        # Beside the interpreter, so that it is found without an activated environment.
        *(
            f"--plugin=protoc-gen-{name}={Path(sys.executable).parent / f'protoc-gen-{name}'}"
            for name in ("mypy", "mypy_grpc")
        ),
        f"--python_out={out}",
        f"--grpc_python_out={out}",
        f"--mypy_out=quiet:{out}",
        f"--mypy_grpc_out=quiet:{out}",
        *protos,
    ]
    if protoc.main(arguments) != 0:
        raise SystemExit(1)


def stubs(root: Path) -> dict[str, str]:
    """The stub files under ``root`` by name."""
    found = {}
    for path in sorted((root / "fermata" / "v1").iterdir()):
        if path.name.endswith(SUFFIXES):
            found[path.name] = path.read_text()
    return found


def main() -> int:
    """Write, or with ``--check`` compare."""
    if "--check" not in sys.argv[1:]:
        generate(ROOT)
        return 0
    with tempfile.TemporaryDirectory() as folder:
        generate(Path(folder))
        fresh, committed = stubs(Path(folder)), stubs(ROOT)
    stale = sorted(name for name in fresh.keys() | committed.keys() if fresh.get(name) != committed.get(name))
    for name in stale:
        print(f"protos/fermata/v1/{name} is not what the protos generate; run: python protos/generate.py")
    return 1 if stale else 0


if __name__ == "__main__":
    raise SystemExit(main())
