# `make demo` and `make test` do everything on a fresh machine; `make help` lists the rest.
#
# System packages that are missing are installed with apt (as root, or through sudo); on other systems the
# missing ones are named. Rust itself comes from https://rustup.rs.

SHELL := /bin/bash
CARGO ?= cargo
PREFIX ?= /usr/local
DIST := dist
# A model file for the C programs, and the checkpoint that `make model` reads.
MODEL ?= models/fairy-q8_0.gguf
CHECKPOINT ?= ../shared/models/fairy.ckpt
TOKENIZER ?= $(dir $(CHECKPOINT))tokenizer.json

.PHONY: help demo test check unit test-c lib header model setup clean

help:
	@echo "make demo    build everything and write a text with the built-in model"
	@echo "make test    format, lints, Rust tests, C tests"
	@echo "make lib     the embeddable library and header in $(DIST)/"
	@echo "make header  write include/esolm.h again after a change of src/capi"
	@echo "make model   make $(MODEL) again from CHECKPOINT=$(CHECKPOINT)"

setup:
	@.ci/setup

demo: setup
	$(CARGO) build --release --bin esolm
	target/release/esolm generate -p "Once upon a time" --alpha0 0.5

test: check unit test-c

check: setup
	$(CARGO) fmt --check
	$(CARGO) clippy --release --all-targets -- -D warnings

# One test at a time: ggml's threads wait by spinning, so tests that compute side by side slow each other down.
unit: setup
	$(CARGO) test --release -- --test-threads=1

# Runtime and C functions alone, without converter and command line.
lib: setup
	$(CARGO) build --release --lib --no-default-features --features capi
	mkdir -p $(DIST)/lib $(DIST)/include
	cp target/release/libesolm.a target/release/libesolm.so $(DIST)/lib/
	cp include/esolm.h $(DIST)/include/

C_FLAGS := -std=c11 -D_POSIX_C_SOURCE=200809L -Wall -Wextra -Werror -pedantic -I$(DIST)/include
C_LIBS := $(DIST)/lib/libesolm.a -lstdc++ -lpthread -lm -ldl

test-c: lib
	mkdir -p target/c
	$(CC) $(C_FLAGS) examples-c/generate.c -o target/c/generate $(C_LIBS)
	target/c/generate $(MODEL) "Once upon a time"
	$(CC) $(C_FLAGS) ffi-tests/c/api.c -o target/c/api $(C_LIBS)
	target/c/api $(MODEL)

header: setup
	ESOLM_UPDATE_HEADER=1 $(CARGO) test --release --test header

model: setup
	$(CARGO) run --release --bin esolm --no-default-features --features cli -- convert $(CHECKPOINT) \
	  --tokenizer $(TOKENIZER) --type q8_0 --name fairy --force -o $(MODEL)

clean:
	$(CARGO) clean
	rm -rf $(DIST)
