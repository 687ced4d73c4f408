# The front door. Each target works alone on a fresh Debian 12 machine as root.
#
#   make quickstart   install, build, and run a whole volume's life on this machine
#   make test         everything that CI runs (about 40 minutes on 2 cores)
#   make check        before every commit: format, layering, tidy, build, unit tests, short simulation
#   make bench        side by side with the machine's limits and with nbdkit; prints ratios
#   make soak         long loops: crash states, kill -9, simulation seeds, TSan
#   make fuzz         every fuzz target for FUZZ_SECONDS (600) each
#   make install      into PREFIX (/usr/local), DESTDIR respected

SHELL := /bin/bash
PREFIX ?= /usr/local
FUZZ_SECONDS ?= 600
BASE ?= HEAD

.PHONY: all deps release dev asan planted fio-engine quickstart test check bench soak fuzz tsan tidy format install clean

all: release

deps:
	@scripts/install_deps.sh

release dev asan tsan planted: deps
	@cmake --preset $@ >/dev/null
	@cmake --build build/$@

# The fio engine is built against headers of the installed fio, fetched as Debian source.
fio-engine: release
	@cmake --build build/release --target fio_engine

quickstart: fio-engine
	@scripts/quickstart.sh build/release

test: deps
	@scripts/test.sh

check: deps
	@scripts/check.sh

bench: fio-engine
	@bench/run.py --build build/release

soak: deps
	@scripts/soak.sh

fuzz: deps
	@scripts/fuzz.sh $(FUZZ_SECONDS)

# The whole tree; `make check` looks only at what changed since BASE.
tidy: dev
	@scripts/tidy.sh --all

format:
	@git ls-files '*.cpp' '*.hpp' '*.h' '*.c' | xargs clang-format-19 -i

install: fio-engine
	@cmake --install build/release --prefix $(PREFIX)

clean:
	rm -rf build
