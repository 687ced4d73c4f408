#!/usr/bin/env python3
"""Fails when a module includes another that DESIGN's layering does not allow.

The table below is the whole rule: a module may include itself, `base`, and what is listed.
"""
import pathlib
import re
import sys

ALLOWED = {
    "base": set(),
    "runtime": set(),
    "wire": set(),
    "net": {"wire", "runtime"},
    "tray": {"runtime"},
    "store": {"tray", "net", "wire", "runtime", "proto"},
    "meta": {"runtime", "proto"},
    "conductor": {"meta", "net", "wire", "runtime", "proto"},
    "client": {"net", "wire", "runtime", "proto"},
    "attach": {"client", "runtime"},
    "tools": {"runtime", "wire", "net", "tray", "store", "meta", "conductor", "client", "attach", "proto"},
}
MODULES = set(ALLOWED) | {"proto"}
INCLUDE = re.compile(r'^\s*#\s*include\s*["<]([a-z_]+)/')

# Only these may name an implementation of the runtime seam; logic must not know which one it is on.
IMPLEMENTATION = re.compile(r'^\s*#\s*include\s*["<]runtime/(uring|sim)/')
IMPLEMENTATION_USERS = {"runtime", "tools"}


def offences(root: pathlib.Path):
    for path in sorted((root / "src").rglob("*")):
        if path.suffix not in {".cpp", ".hpp", ".h", ".c"}:
            continue
        module = path.relative_to(root / "src").parts[0]
        is_test = path.stem.endswith(("_test", "_fuzz"))
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
            match = INCLUDE.match(line)
            if not match or match.group(1) not in MODULES:
                continue
            target = match.group(1)
            if target not in ALLOWED[module] | {module, "base"}:
                yield f"{path.relative_to(root)}:{number}: {module} may not include {target}"
            if IMPLEMENTATION.match(line) and not is_test and not allowed_implementation(path, module):
                yield f"{path.relative_to(root)}:{number}: only mains may pick a runtime implementation"


def allowed_implementation(path: pathlib.Path, module: str) -> bool:
    # The C API is the library's main: it makes the reactor that the program's I/O runs on.
    if module == "client" and path.stem.startswith("capi"):
        return True
    return module in IMPLEMENTATION_USERS or path.stem.endswith("_uring_main")


def main() -> int:
    root = pathlib.Path(__file__).resolve().parent.parent
    found = list(offences(root))
    for line in found:
        print(line, file=sys.stderr)
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
