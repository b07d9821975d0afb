# Phones behind adb, and the real adbd on loopback in place of one; the Makefile beside README.md includes this.

BENCH_BINARY := $(ANDROID)/bench
BENCH_SOURCES := $(wildcard android_demo/bench_binary/*.[ch])
BENCH_CFLAGS := -std=gnu11 -O2 -Wall -Wextra -Werror
# The Android NDK's folder, for a program that runs on phones; without it the program is for this machine.
NDK ?=
NDK_CC = $(NDK)/toolchains/llvm/prebuilt/linux-x86_64/bin/aarch64-linux-android26-clang
AAR := android_demo/tflite-classes/target/aar/tensorflow-lite.aar

.PHONY: adb-packages bench-binary profile-adb-loopback

adb-packages: $(READY) ## unpack Debian's adb and adbd into build/adb, for the tests and profile-adb-loopback; no root needed
	@$(BIN)/python -m tests.devices.phone build/adb

bench-binary: android-tflite ## the program that times bundles on a phone: build/android/bench-arm64 (NDK=folder), or bench for this machine
ifeq ($(NDK),)
	@mkdir -p $(BENCH_BINARY)
	@cc $(BENCH_CFLAGS) -o $(BENCH_BINARY)/pocketvl-bench $(filter %.c,$(BENCH_SOURCES)) -ldl -lm -pthread
	@cp $(dir $(TFLITE))*.so $(BENCH_BINARY)
else
	@mkdir -p $(BENCH_BINARY)-arm64
	@$(NDK_CC) $(BENCH_CFLAGS) -o $(BENCH_BINARY)-arm64/pocketvl-bench $(filter %.c,$(BENCH_SOURCES)) -ldl -lm -pthread
	@$(PYTHON) -m zipfile -e $(AAR) $(ANDROID)/aar
	@cp $(ANDROID)/aar/jni/arm64-v8a/libtensorflowlite_jni.so $(BENCH_BINARY)-arm64
endif

profile-adb-loopback: bench-binary adb-packages ## pocketvl profile --adb, end to end, with the real adbd on loopback (BUNDLE=folder)
	@$(BIN)/python -m tests.devices.loopback $(or $(BUNDLE),build/tabletop-clip) $(BENCH_BINARY)/pocketvl-bench \
		-o build/adb-loopback.json
