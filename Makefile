# Every target says what it does; `make help` lists them.
# T=NAME       part of the names of the tests to run
# ONLY=PREFIX  benchmarks to run
# SECONDS=N    how long to fuzz each room
# DESTDIR, PREFIX  where `make install` puts things

PREFIX ?= /usr
T ?=
ONLY ?=
SECONDS ?= 60
export CARGO_TERM_COLOR ?= auto

.PHONY: all help setup build demo test test-vm soak test-teeth fuzz bench install deb lint clean

all: build

help:
	@sed -n 's/^## //p' Makefile

setup:
	@scripts/setup.sh

## build        the programs, optimised
build: setup
	@echo "==> building the programs"
	@cargo build --locked --release --workspace --bins
	@cargo build --locked --release -p fief-vdeplug

## demo         a host with tenants that all have the same client, on this machine, in namespaces
demo: build
	@echo "==> the demonstration"
	@scripts/demo.sh

## test         all tests (T=NAME: some), in namespaces; needs root or sudo
test: setup
	@echo "==> tests$(if $(T), with $(T) in their name)"
	@scripts/test.sh $(T)

## test-vm      the tests that need another kernel, in QEMU
test-vm: setup
	@echo "==> tests in a virtual machine"
	@scripts/test-vm.sh $(T)

## soak         all tests with full numbers and the optimised programs, ignored ones included, one after the other
soak: build
	@echo "==> tests with full numbers"
	@FIEF_SOAK=1 FIEF_BIN_DIR="$${CARGO_TARGET_DIR:-$$PWD/target}/release" FIEF_TEST_JOBS=$${FIEF_TEST_JOBS:-1} FIEF_TEST_TIMEOUT=$${FIEF_TEST_TIMEOUT:-3600} scripts/test.sh --all $(T)

## test-teeth   every protection switched off alone: its test must then fail
test-teeth: setup
	@echo "==> do the tests bite?"
	@scripts/test-teeth.sh $(T)

## fuzz         a search by coverage for bytes that break a reader, of the kernel or of clients (SECONDS=60 each)
fuzz: setup
	@echo "==> fuzzing"
	@scripts/fuzz.sh $(SECONDS)

## bench        the benchmarks (ONLY=PREFIX: some); report in target/bench/report.json
bench: setup
	@echo "==> benchmarks$(if $(ONLY), whose id begins with $(ONLY))"
	@scripts/bench.sh $(ONLY)

## install      the programs and the systemd unit, below DESTDIR and PREFIX
install: build
	@echo "==> installing below $(DESTDIR)$(PREFIX)"
	@PREFIX="$(PREFIX)" DESTDIR="$(DESTDIR)" scripts/install.sh

## deb          a Debian package, target/fief_VERSION_ARCH.deb
deb: build
	@echo "==> a Debian package"
	@scripts/deb.sh

## lint         formatting, clippy, licences and advisories of the dependencies
lint: setup
	@echo "==> formatting"
	@cargo fmt --all --check
	@echo "==> clippy"
	@cargo clippy --locked --workspace --all-targets -- -D warnings
	@echo "==> dependencies"
	@if command -v cargo-deny >/dev/null; then cargo deny --locked check; \
		else echo "SKIP cargo-deny is not installed"; fi

## clean        remove everything that was built
clean:
	@echo "==> removing what was built"
	@cargo clean
