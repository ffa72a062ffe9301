# `make demo` and `make test` do everything on a fresh machine; `make help` lists the rest.
#
# System packages that are missing are installed with apt (as root, or through sudo); on other systems the
# missing ones are named. Rust itself comes from https://rustup.rs.

SHELL := /bin/bash
CARGO ?= cargo
PREFIX ?= /usr/local
DIST ?= dist
# The processor to compile for, by the names that gcc and rustc share: native, x86-64-v3, ... Unless it is given, the platform's
# baseline (.cargo/config.toml), which runs everywhere: esolm's own kernels choose by the processor they find, ggml's do not.
CPU ?=
ifneq ($(CPU),)
export RUSTFLAGS := -Ctarget-cpu=$(CPU)
endif
# Rust's name of another platform to build for; its compilers and linker are for the environment to say (docs/platforms.md).
TARGET ?= $(CARGO_BUILD_TARGET)
# Only what is built for TARGET is: the others run here.
unexport CARGO_BUILD_TARGET
# A model file for the C programs, and the checkpoint that `make model` reads.
MODEL ?= models/stories-q8_0.gguf
CHECKPOINT ?= ../shared/models/stories
# A tokenizer.json, where the checkpoint's folder has none.
TOKENIZER ?=

.PHONY: help demo test check unit test-c build lib command install install-lib install-command uninstall programs memcheck asan asan-rust tsan miri loom coexist bench-peers test-qwen check-wedlm count cycles header \
  api abi model samples setup clean notices sbom deny reproducible test-long train-demo train-test fuzz fuzz-check side-check script-check faults soak \
  hardened offline crates test-swift test-arm cuda gpu-bundle test-vulkan check-targets oldest-rust dist test-dist test-windows test-mingw wheel test-python test-ray test-serve

help:
	@echo "make demo    build everything and write a text with the built-in model"
	@echo "make test    format, lints, Rust tests, C tests"
	@echo "make build   the embeddable library and the command in $(DIST)/ (make lib, make command); CPU=native: for this processor"
	@echo "make install PREFIX=/usr/local [DESTDIR=]   what was built: the library (install-lib: header, pkg-config and CMake files)"
	@echo "             and the command (install-command: with manual pages and shell completions); make uninstall"
	@echo "make test-c  all tests outside Rust: C, C++, Go, Swift, examples, ways to link"
	@echo "make memcheck  the C programs under valgrind; make asan: under the address sanitizer;"
	@echo "             make asan-rust: the Rust tests (nightly Rust)"
	@echo "make test-swift  the Swift package, in a Debian 13 that is made under target/ (3 GB)"
	@echo "make test-arm  64-bit Arm: cross-built, run under qemu"
	@echo "make check-targets  type-checks for Windows, macOS, iOS, Android, musl, WASI"
	@echo "make dist    archives to download, Debian packages and checksums, in $(DIST)/release; make test-dist: each of them used"
	@echo "             in clean systems; make test-windows: under wine; make test-mingw: compiled by MinGW, not zig"
	@echo "make crates  the crates as a registry gets them: their sizes, tests without this tree, older processors;"
	@echo "             make oldest-rust: with the Rust that Cargo.toml promises"
	@echo "make cuda    library, command and C programs with CUDA, whose compiler comes from PyPI (20 to 60 minutes on two cores; takes"
	@echo "             no GPU); make gpu-bundle: what a machine with one needs to test and measure it"
	@echo "make test-vulkan  the device tests on Mesa's software GPU, in the same Debian 13"
	@echo "make tsan    many threads under the thread sanitizer (nightly Rust, clang)"
	@echo "make miri    what does not call ggml under Rust's checker of undefined behaviour (nightly Rust)"
	@echo "make loom    the same threads in every order of events (loom)"
	@echo "make hardened  all such checks, with a table; make soak: 100,000 generations; make faults: every failing call"
	@echo "make coexist beside whisper.cpp with a ggml of another version (builds it)"
	@echo "make test-qwen  Qwen and WeDLM against transformers, and a large folder converted in little memory (PyTorch, installed under"
	@echo "             target/ from PyPI); make check-wedlm MODEL=FOLDER: published weights, asked ten questions"
	@echo "make bench-peers  speed beside llama.cpp and PyTorch, in one run"
	@echo "make count   instructions of a step against the record (callgrind)"
	@echo "make cycles  cycles of the kernels' loops on other processors against the record (llvm-mca)"
	@echo "make header  write include/esolm.h again after a change of src/capi"
	@echo "make api     record a change of the public Rust interface"
	@echo "make abi     record what a change adds to the binary interface"
	@echo "make notices write THIRD-PARTY.txt again after a change of Cargo.lock; make sbom: a bill of materials in $(DIST)/"
	@echo "make deny    licences, sources and known faults of the packages (cargo-deny)"
	@echo "make reproducible  build both libraries, or PLATFORMS, in two folders and compare the bytes; make offline: from vendored sources"
	@echo "make train-demo  train a tiny model for five minutes (PyTorch, installed under target/ from PyPI, some GB)"
	@echo "make test-long   the tests that take more than make test installs: train-test, the losses of training/, Qwen, fuzz, faults, Swift, Python, OpenAI's client, Ray, cycles, Arm, Vulkan, other platforms, what is downloaded, and soak"
	@echo "make fuzz SECONDS=300  the fuzz targets of fuzz/, that long in all (nightly Rust)"
	@echo "make samples what README.md and docs/cli.md show of the built-in model's texts"
	@echo "make wheel   the Python wheel in $(DIST)/; make test-python: its tests, here and with the Python of a Debian 13 (see test-swift)"
	@echo "make test-serve  esolm serve with the client of OpenAI, which is installed under target/ from PyPI"
	@echo "make test-ray  the example for Ray, with a worker that is killed in the middle (Ray is installed under target/ from PyPI)"
	@echo "make model   make $(MODEL) again from CHECKPOINT=$(CHECKPOINT)"

setup:
	@.ci/setup
setup-%:
	@.ci/setup $*
setup-hardened: setup-test

demo: setup
	$(CARGO) build --release -p esolm-cli
	target/release/esolm generate -p "Once upon a time" --seed 1

test: check unit test-c asan
	@sort -u $(BUILD)/skipped/* 2>/dev/null | sed 's/^/esolm: /'

check: setup-test
	$(CARGO) fmt --all --check
	$(CARGO) clippy --workspace --release --all-targets -- -D warnings
	$(CARGO) clippy -p esolm --release --features capi -- -D warnings
	RUSTDOCFLAGS="-D warnings" $(CARGO) doc --release --no-deps -p esolm --features capi,convert
	@$(MAKE) --no-print-directory fuzz-check side-check script-check

# One test at a time: ggml's threads wait by spinning, so tests that compute side by side slow each other down.
unit: setup-test
	$(CARGO) test --workspace --release -- --test-threads=1

# The runtime and the C functions, without converter and command. FEATURES may add cuda. (`-p esolm`, as features of packages
# that are built together add up.)
FEATURES ?= capi
TEXT_FEATURES = capi,chat,grammar
LIB_ARGS ?= -p esolm --lib --no-default-features --features $(FEATURES)
BUILD ?= target
HOST = $(shell rustc -vV | sed -n 's/^host: //p')
OUT = $(BUILD)$(if $(TARGET),/$(TARGET))/release
FOR_TARGET = $(if $(TARGET),--target $(TARGET))
lib: setup
	$(CARGO) build --release $(LIB_ARGS) $(FOR_TARGET) --target-dir $(BUILD)
	packaging/pack-library $(OUT) $(DIST) $(or $(TARGET),$(HOST))

# The command, its manual pages and the completions of shells. CLI_FEATURES adds features, such as cuda. For another platform the
# command of this one writes the pages: CPU is not meant for it.
CLI_FEATURES ?=
command: setup
	$(CARGO) build --release -p esolm-cli --features "$(CLI_FEATURES)" $(FOR_TARGET) --target-dir $(BUILD)
	$(if $(TARGET),env -u RUSTFLAGS $(CARGO) build --release -p esolm-cli --target-dir $(BUILD))
	packaging/pack-command $(OUT)/esolm$(if $(findstring windows,$(TARGET)),.exe) $(DIST) $(or $(TARGET),$(HOST)) \
	  $(if $(TARGET),$(BUILD)/release/esolm)

build: lib command

# What was built is copied, so that it works as root without Rust. LIBDIR and INCLUDEDIR move a part elsewhere; LIBS adds to what
# a static link needs (CUDA's libraries).
install-lib:
	@test -e $(DIST)/include/esolm.h || { echo "esolm: nothing built in $(DIST): make lib first" >&2; exit 1; }
	packaging/install $(DIST) $(PREFIX) $(DESTDIR)

install-command:
	@test -e $(DIST)/bin/esolm || test -e $(DIST)/bin/esolm.exe || { echo "esolm: nothing built in $(DIST): make command first" >&2; exit 1; }
	packaging/install-command $(DIST) $(PREFIX) $(DESTDIR)

install: install-lib install-command

uninstall:
	packaging/uninstall $(DIST) $(PREFIX) $(DESTDIR)

# The programs that ctest runs, against an installed copy. C_FLAGS adds to how they are compiled.
CTEST ?= $(BUILD)/ctest
programs: setup-test lib
	rm -rf $(BUILD)/prefix
	packaging/install $(DIST) $(abspath $(BUILD))/prefix >/dev/null
	cmake -S ffi-tests -B $(CTEST) -DCMAKE_BUILD_TYPE=Release -DESOLM_PREFIX=$(abspath $(BUILD))/prefix \
	  -DCMAKE_C_FLAGS="$(C_FLAGS)" -DCMAKE_CXX_FLAGS="$(C_FLAGS)" \
	  -DESOLM_CARGO_DIR=$(abspath $(BUILD)) -DESOLM_MODEL=$(abspath $(MODEL)) >/dev/null
	cmake --build $(CTEST) --parallel $(shell nproc 2>/dev/null || echo 2)

# The last words of a test: what it left out.
SAY_SKIPPED = { mkdir -p $(BUILD)/skipped && grep -h -i skipped $(1) | sort -u | tee $(BUILD)/skipped/$(2) | sed 's/^/esolm: /'; } || true
# C, C++, Go, Swift, the examples, and every way to link the library.
test-c: programs
	ctest --test-dir $(BUILD)/ctest --output-on-failure
	@$(call SAY_SKIPPED,$(BUILD)/ctest/Testing/Temporary/LastTest.log,c)

# Swift, and Go for the text that both write, in a Debian 13 that is made under target/ (3 GB, minutes once; takes root). It runs the library of this system.
TRIXIE = ffi-tests/in-debian target/trixie trixie "swiftlang libc6-dev libstdc++-14-dev pkgconf git gcc golang-go"
test-swift:
	$(MAKE) programs FEATURES=$(TEXT_FEATURES) DIST=$(BUILD)/text
	$(CARGO) build --release -p esolm-cli --target-dir $(BUILD)
	$(TRIXIE) packaging/install $(BUILD)/text /opt/esolm >/dev/null
	$(TRIXIE) ffi-tests/swift $(CURDIR) /opt/esolm $(abspath $(BUILD)) $(abspath $(MODEL)) \
	  $(abspath $(CTEST))/generate $(abspath $(CTEST))/defaults-cpp

# With CUDA, on a machine that need not have a GPU (docs/devices.md): compiler and libraries come from PyPI (0.8 GB, once).
# CUDAARCHS names the GPUs' architectures as CMake does. The programs run on other machines, too.
CUDAARCHS ?= 90-real
CUDA_BUILD = $(abspath $(BUILD))/cuda
CUDA_TOOLKIT = $(abspath $(BUILD))/cuda-toolkit
CUDA_LIBS = -L$(CUDA_TOOLKIT)/lib -lcublas -lcublasLt
CUDA_ENV = CUDA_PATH=$(CUDA_TOOLKIT) CUDAToolkit_ROOT=$(CUDA_TOOLKIT) CUDA_LIBRARY_PATH=$(CUDA_TOOLKIT) \
  CUDACXX=$(CUDA_TOOLKIT)/bin/nvcc CUDAARCHS="$(CUDAARCHS)" CMAKE_CUDA_ARCHITECTURES="$(CUDAARCHS)" \
  CUDAFLAGS=--compress-mode=size CMAKE_POSITION_INDEPENDENT_CODE=ON LD_LIBRARY_PATH=$(CUDA_TOOLKIT)/lib \
  RUSTFLAGS="-Ctarget-cpu=x86-64-v3 $(patsubst %,-Clink-arg=%,$(CUDA_LIBS))" LIBS="$(CUDA_LIBS)"
# Command and library in one go, and with CUDA the tests: with other features around it, cargo would compile the library again,
# which takes minutes.
DEVICE_ARGS = -p esolm -p esolm-cli --features esolm/capi,esolm/$(1),esolm-cli/$(1)
cuda: setup-python
	packaging/cuda-toolkit $(CUDA_TOOLKIT)
	$(CUDA_ENV) $(MAKE) programs BUILD=$(CUDA_BUILD) DIST=$(CUDA_BUILD)/dist \
	  LIB_ARGS="$(call DEVICE_ARGS,cuda) --lib --bins --test integration"
	$(CUDA_ENV) ffi-tests/cuda $(CUDA_BUILD) $(abspath $(MODEL))

# The command without its built-in model, which the bundle has as a file.
gpu-bundle: cuda
	$(CUDA_ENV) $(CARGO) build --release -p esolm-cli --no-default-features --features cuda --target-dir $(CUDA_BUILD)
	LD_LIBRARY_PATH=$(CUDA_TOOLKIT)/lib packaging/gpu-bundle $(CUDA_BUILD) $(DIST)/gpu-bundle

# Devices, on Mesa's software GPU in the Debian 13 of test-swift: Mesa 22.3 of Debian 12 crashed, and its headers of Vulkan are
# too old for ggml. Takes root; on two cores ten minutes to build, and as many to run.
VULKAN_BUILD = $(abspath $(BUILD))/vulkan
VULKAN_DEBIAN = ffi-tests/in-debian target/trixie trixie "libvulkan1 mesa-vulkan-drivers"
VULKAN_ENV = VULKAN_SDK=$(VULKAN_BUILD)/sdk LIBS=-lvulkan
test-vulkan: setup-vulkan
	mkdir -p $(VULKAN_BUILD)
	$(VULKAN_DEBIAN) ffi-tests/vulkan-headers $(VULKAN_BUILD)/sdk
	$(VULKAN_ENV) $(MAKE) programs BUILD=$(VULKAN_BUILD) DIST=$(VULKAN_BUILD)/dist LIB_ARGS="$(call DEVICE_ARGS,vulkan)"
	$(VULKAN_ENV) $(CARGO) test --release --no-run -p esolm --features vulkan --lib --test integration --test allocations \
	  --target-dir $(VULKAN_BUILD)
	$(VULKAN_DEBIAN) ffi-tests/vulkan $(VULKAN_BUILD) $(abspath $(MODEL))

# 64-bit Arm: a cross-build whose tests run under qemu (docs/platforms.md). ARM names parts: unit golden text c cmake.
ARM ?=
test-arm: setup-arm
	$(CARGO) build --release -p esolm-cli --target-dir $(BUILD)
	tests/arm $(abspath $(BUILD))/arm $(abspath $(BUILD))/release/esolm $(abspath $(MODEL)) $(ARM)

# Whether the library and the command compile for platforms that are not here, up to what is C (docs/platforms.md).
check-targets: setup
	$(CARGO) build --release -p esolm --target-dir $(BUILD)
	tests/targets $(BUILD) $(TARGETS)

# What people download (docs/packages.md), for each platform: archives, Debian packages, the Python wheel, checksums, bill of materials.
# zig compiles for all of them. DIST_PLATFORMS names some. What an earlier build left in RELEASE is removed: the checksums are of one commit.
DIST_PLATFORMS ?= x86_64-linux-gnu aarch64-linux-gnu x86_64-linux-musl aarch64-linux-musl x86_64-windows-gnu
DIST_BUILD = $(abspath $(BUILD))/dist
RELEASE = $(abspath $(DIST))/release
dist: setup-dist
	packaging/zig-toolchain $(DIST_BUILD)/zig
	@mkdir -p $(RELEASE)
	@find $(RELEASE) -maxdepth 1 -type f -delete
	for platform in $(DIST_PLATFORMS); do packaging/dist $(DIST_BUILD) $(RELEASE) $$platform || exit 1; done
	for platform in $(filter %-linux-gnu,$(DIST_PLATFORMS)); do packaging/deb $(DIST_BUILD) $(RELEASE) $$platform || exit 1; done
	for platform in $(filter %-linux-gnu,$(DIST_PLATFORMS)); do \
	  SOURCE_DATE_EPOCH=$$(git log -1 --format=%ct) packaging/wheel $(DIST_BUILD)/dist-$$platform/lib/libesolm.so $(RELEASE) || exit 1; done
	packaging/notices --sbom >$(RELEASE)/esolm.cdx.json
	cd $(RELEASE) && sha256sum $$(ls | grep -v SHA256SUMS) >SHA256SUMS

# Each archive unpacked and used where there is no Rust: Debian 12 and 13, an empty folder, qemu. Takes root, as test-swift.
test-dist: dist setup-arm
	ffi-tests/dist/run $(DIST_BUILD) $(RELEASE)

# With the oldest Rust that Cargo.toml promises: the library with the features that take no GPU, and the command.
oldest-rust: setup
	rust=$$(sed -n 's/^rust-version = "\(.*\)"/\1/p' Cargo.toml) && rustup toolchain install $$rust --profile minimal && \
	$(CARGO) +$$rust test --release --locked -p esolm --features capi,chat,convert,grammar --lib --target-dir $(BUILD)/oldest && \
	$(CARGO) +$$rust check --release --locked -p esolm-cli --target-dir $(BUILD)/oldest

# The crates as a registry gets them, used without this tree and its .cargo/config.toml (docs/releasing.md).
crates: setup
	packaging/crates $(BUILD)

# Windows under wine, in the same Debian 13: the command, the C programs with the DLL, files that are mapped, long and non-ASCII paths.
# The archives are not those of a release.
WINDOWS_RELEASE = $(DIST_BUILD)/release-for-windows
test-windows: setup
	$(MAKE) dist DIST_PLATFORMS="x86_64-linux-gnu x86_64-windows-gnu" RELEASE=$(WINDOWS_RELEASE)
	ffi-tests/in-debian $(DIST_BUILD)/trixie trixie "wine64 gcc-mingw-w64-x86-64-win32 g++-mingw-w64-x86-64-win32 cmake make python3 golang-go" \
	  ffi-tests/windows $(DIST_BUILD) $(WINDOWS_RELEASE) $(abspath $(MODEL))

# The same compiled there by MinGW, for who has no zig.
MINGW_BUILD = $(abspath $(BUILD))/mingw
test-mingw: command
	rustup target add x86_64-pc-windows-gnu
	mkdir -p $(MINGW_BUILD)/cargo
	$(CARGO) vendor --locked $(MINGW_BUILD)/packages >$(MINGW_BUILD)/cargo/config.toml
	rust=$$(rustc --print sysroot) && MOUNTS="$$rust" ffi-tests/in-debian $(DIST_BUILD)/trixie trixie \
	  "wine64 gcc-mingw-w64-x86-64-win32 g++-mingw-w64-x86-64-win32 cmake make gcc g++ libc6-dev libclang-dev" \
	  ffi-tests/mingw $(MINGW_BUILD) "$$rust" $(abspath $(BUILD))/release/esolm

# The C programs under valgrind, which does not know the newest instructions: with the platform's baseline it has all that ggml was
# compiled for, and the library's kernels choose by the processor that it shows them.
memcheck: programs
	ffi-tests/memcheck $(CTEST) $(abspath $(MODEL))

# The same programs and C++ with the address and the undefined-behaviour sanitizer, and leak detection; and Go. The library has
# chat templates and grammars, which `make lib` leaves out: here they are used, in `test-c` refused; a C program that does not find
# them says so, and fails this in the end. Tests ask for absurd
# amounts of memory and expect NULL, as malloc returns; the sanitizer ends the process unless it is told otherwise.
asan:
	$(MAKE) programs FEATURES=$(TEXT_FEATURES) DIST=$(BUILD)/text CTEST=$(BUILD)/asan \
	  C_FLAGS="-fsanitize=address,undefined -fno-sanitize-recover=all -g -O1"
	ASAN_OPTIONS=allocator_may_return_null=1 ctest --test-dir $(BUILD)/asan --output-on-failure -R '^(api|threads|example|go$$)'
	! grep 'not in this build\|lacks the feature' $(BUILD)/asan/Testing/Temporary/LastTest.log
	@$(call SAY_SKIPPED,$(BUILD)/asan/Testing/Temporary/LastTest.log,asan)

# The tests of the library, with this processor's kernels, with Rust's code compiled with the address sanitizer; ggml's is
# not. Takes a nightly Rust. (Tests ask for absurd amounts of memory, as above.)
asan-rust: setup-nightly
	ASAN_OPTIONS=allocator_may_return_null=1 RUSTFLAGS="-Zsanitizer=address -Ctarget-cpu=native" \
	  $(CARGO) +nightly test --release -p esolm --lib --test integration --target $(HOST) \
	  --target-dir $(BUILD)/asan-rust -- --test-threads=1

# One model in many threads under the thread sanitizer: Rust, its standard library and ggml compiled with it.
tsan: setup-hardened
	ffi-tests/tsan $(CURDIR) $(abspath $(BUILD))/tsan $(abspath $(MODEL))

# Undefined behaviour and races among the threads of a context, in many orders of events: takes a nightly Rust with miri.
# Skipped: what calls the processor or the system in ways that miri does not have, allocations that the system refuses (miri
# ends with them), tests whose matrices, samples and texts are too large for it (tests/miri has small ones), and those that read files.
# MIRI_SEEDS: how many orders of events.
MIRI_SEEDS ?= 16
MIRI = $(CARGO) +nightly miri test --lib --manifest-path tests/miri/Cargo.toml --target-dir $(abspath $(BUILD))/miri --
MIRI_RUSTFLAGS = "--cfg rustix_use_libc"
MIRI_SKIP = cpu::threads kernels::matmul kernels::attention kernels::panel kernels::isa processor floats temporary_names \
  atomic_file::tests in_proportion deep_nesting millions_of draws_follow equally_likely match_reference matches_reference \
  reference_mean on_random_texts exp_is_accurate have_the_distribution pages::tests too_much_is_an_error \
  templates_give_the_text long_conversation deepest_template hostile_templates
miri: setup-nightly
	RUSTFLAGS=$(MIRI_RUSTFLAGS) MIRIFLAGS="-Zmiri-many-seeds=0..$(MIRI_SEEDS)" $(MIRI) cpu::threads
	RUSTFLAGS=$(MIRI_RUSTFLAGS) MIRIFLAGS=-Zmiri-disable-isolation $(MIRI) $(MIRI_SKIP:%=--skip %)

# The threads of a context in every order of events, up to a number of preemptions.
loom:
	$(CARGO) run --release --locked --manifest-path tests/loom/Cargo.toml --target-dir $(abspath $(BUILD))/loom

# Beside whisper.cpp with another version of ggml, which is built for this.
coexist: programs
	ffi-tests/coexist/run-whisper $(CURDIR) $(abspath $(BUILD))/prefix $(abspath $(BUILD)) $(abspath $(MODEL))

# Beside llama.cpp, PyTorch (installed under target/ from PyPI, some GB) and this library without a cache. llama.cpp is
# compiled here (minutes): neither a wheel from elsewhere nor one that pip kept. PEERS="qwen3-1.7b q4_k 3": other shapes.
bench-peers: setup-python
	test -d target/peers || python3 -m venv target/peers
	target/peers/bin/pip install --quiet numpy torch
	CMAKE_ARGS=-DGGML_NATIVE=ON target/peers/bin/pip install --quiet --no-cache-dir \
	  --no-binary llama-cpp-python llama-cpp-python==0.3.36
	PEER_PYTHON=$(abspath target/peers/bin/python) $(CARGO) bench -p esolm-cli --bench peers -- $(PEERS)

# Training (docs/training.md). TRAIN_PYTHON may name a Python that has the packages; then nothing is installed.
ifndef TRAIN_PYTHON
TRAIN_PYTHON := target/training/bin/python
TRAIN_READY := target/training/installed
endif
target/training/installed: training/requirements.lock | setup-python
	python3 -m venv target/training
	target/training/bin/pip install --quiet --require-hashes -r training/requirements.lock
	touch $@

train-demo: setup-python $(TRAIN_READY)
	$(CARGO) build --release -p esolm-cli
	TRAIN_PYTHON=$(TRAIN_PYTHON) training/demo

train-test: $(TRAIN_READY)
	$(TRAIN_PYTHON) -m unittest discover -s training

# Hostile input without end (docs/fuzzing.md): takes a nightly Rust, and minutes to build once.
SECONDS ?= 300
fuzz: setup-nightly
	BUILD=$(abspath $(BUILD)) fuzz/run $(SECONDS)

# Whether the fuzz targets of whole paths compile, with stable Rust and what it has built of the packages: a changed interface
# is found by make test. (Those of the readers take --cfg fuzzing, with which all is built again.)
FUZZ_WHOLE = gguf checkpoint safetensors shards tokenizer template chat_template grammar requests state imatrix plans calls
fuzz-check:
	@CARGO='$(CARGO)' tests/packages fuzz/Cargo.toml $(BUILD)/skipped/fuzz || exit $$(($$? - 1)); \
	CARGO_PROFILE_RELEASE_DEBUG=0 $(CARGO) check --release --locked --manifest-path fuzz/Cargo.toml --target-dir $(BUILD) \
	  $(FUZZ_WHOLE:%=--bin=%)

# Whether what make miri and make loom run compiles: both take files of src/ one by one, so that a new one is missing there first.
side-check: side-check-miri side-check-loom
side-check-miri: TESTS = --tests
side-check-%:
	@CARGO='$(CARGO)' tests/packages tests/$*/Cargo.toml $(BUILD)/skipped/$* || exit $$(($$? - 1)); \
	$(CARGO) check --locked --manifest-path tests/$*/Cargo.toml $(TESTS) --target-dir $(BUILD)/side

# Whether the Python files compile, most of which (those of make bench-peers, say) no target of make test runs; and what of the
# example for Ray takes no Ray.
script-check:
	PYTHONPYCACHEPREFIX=$(abspath $(BUILD))/python-cache python3 -m compileall -q \
	  benches bindings/python cli/benches docs examples ffi-tests tests training
	python3 -B ffi-tests/ray/test_losses.py

faults: setup
	ESOLM_FAULTS=all $(CARGO) test --release -p esolm-cli --test cli faults -- --test-threads=1 --nocapture

# For who has the weights: converts them and asks ten questions. MODEL: a folder, or a GGUF file.
check-wedlm: build
	tests/qwen/check-wedlm "$(MODEL)"

# Qwen and WeDLM against transformers, which is installed with PyTorch; and a folder of 16 GB converted in little memory.
test-qwen: setup-python build
	tests/qwen/run
	tests/qwen/large

test-long: train-test fuzz loom test-qwen faults test-swift test-python test-serve test-ray cycles test-arm test-vulkan check-targets oldest-rust crates test-dist test-windows test-mingw
	$(MAKE) soak GENERATIONS=10000

# Instructions of a step; the times are in docs/benchmarks.md.
count:
	benches/count

# Of the inner loops, on processors that need not be here (docs/cycles.md). Takes LLVM 19 or newer, and Rust's target for Arm.
cycles: setup-cycles
	benches/cycles/run

header: setup
	ESOLM_UPDATE_HEADER=1 $(CARGO) test --release -p esolm --test header

api: setup
	ESOLM_UPDATE_API=1 $(CARGO) test --release -p esolm --test public_api

abi:
	ffi-tests/abi/check include/esolm.h --update

# The texts and the picture that README.md and docs/cli.md show; after a change of the model or of what the command does.
samples: setup
	ESOLM_UPDATE_SAMPLES=1 $(CARGO) test --release -p esolm-cli --test cli documents_show
	docs/unmasking.py target/release/esolm >$(BUILD)/unmasking.svg
	mv $(BUILD)/unmasking.svg docs/unmasking.svg

# What esolm is made of (docs/packages.md). The tests hold THIRD-PARTY.txt and deny.toml to Cargo.lock.
notices:
	packaging/notices

sbom:
	mkdir -p $(DIST)
	packaging/notices --sbom >$(DIST)/esolm.cdx.json

# The database of advisories is fetched; without it: make deny CHECKS="licenses bans sources".
CHECKS ?= advisories licenses bans sources
deny:
	@$(CARGO) deny --version >/dev/null 2>&1 || { echo "esolm: please install cargo-deny: cargo install cargo-deny" >&2; exit 1; }
	$(CARGO) deny --workspace --locked check $(CHECKS)

# PLATFORMS: of what people download (as DIST_PLATFORMS), in place of the libraries alone.
reproducible: setup
	packaging/reproducible $(PLATFORMS)

# From vendored sources, with an empty cache of packages.
offline: setup
	packaging/offline

# Many generations in many threads; the test itself does fewer.
GENERATIONS ?= 100000
soak: setup
	$(CARGO) test --release -p esolm --test soak -- $(GENERATIONS)

# All that looks for undefined behaviour, races, leaks and unhandled failures, with a table. HARDENED names some.
hardened: setup-hardened
	tests/hardened $(HARDENED)

model: setup
	$(CARGO) run --release -p esolm-cli --no-default-features -- convert $(CHECKPOINT) \
	  $(if $(TOKENIZER),--tokenizer $(TOKENIZER)) --type q8_0 --name stories --force -o $(MODEL)

# The Python wheel of this system's library, for systems that are not older; `make dist` has one that is for more.
wheel: setup-python
	$(MAKE) lib DIST=$(BUILD)/wheel FEATURES=$(TEXT_FEATURES)
	rm -f $(DIST)/esolm-*.whl
	packaging/wheel $(BUILD)/wheel/lib/libesolm.so $(DIST)

# In a new environment of this system's Python, with packages of PyPI, and in one of Debian 13's, with its packages.
PYTHON_DEBIAN = ffi-tests/in-debian target/trixie trixie "python3-venv python3-pytest python3-numpy" env SYSTEM=yes
PYTHON_TESTS = ffi-tests/bindings/python $$(ls $(DIST)/esolm-*.whl) $(abspath $(MODEL)) $(BUILD)/python
test-python: wheel
	$(PYTHON_TESTS)/here
	$(PYTHON_DEBIAN) $(PYTHON_TESTS)/trixie

# `esolm serve` with the unmodified client of OpenAI, 1 to 16 of them at once.
test-serve: setup-python
	$(CARGO) build --release -p esolm-cli --target-dir $(BUILD)
	ffi-tests/serve/run $(BUILD)/release/esolm $(abspath $(MODEL)) $(BUILD)/openai

# examples/ray_generate.py with the wheel, on a cluster of two workers on this machine, of which one is killed.
test-ray: wheel
	$(CARGO) build --release -p esolm-cli --target-dir $(BUILD)
	ffi-tests/ray/run $$(ls $(DIST)/esolm-*.whl) $(BUILD)/release/esolm $(abspath $(MODEL)) $(BUILD)/ray

clean:
	$(CARGO) clean
	rm -rf $(DIST)
