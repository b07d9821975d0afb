# Tests of the Android code on a desktop JVM; the Makefile beside README.md includes this.

ANDROID := build/android
# Those of make export, with pictures, captions and questions of their world; without them tiny ones, asked about their golden
# packs and noise.
EXPORTED := $(wildcard build/tabletop-clip build/tabletop-vilt)
SMALL_BUNDLES := build/small-bundles
TEST_BUNDLES ?= $(or $(EXPORTED),$(SMALL_BUNDLES)/clip $(SMALL_BUNDLES)/vilt)
TEST_DATA ?= $(if $(EXPORTED),$(wildcard build/tabletop-eval))
TFLITE := $(ANDROID)/tflite/libtflite_desktop.so
# The app's tests want aapt2.
APP_TESTS = $(if $(shell command -v aapt2),-P app $(addprefix -Dpocketvl.scenes=,$(abspath $(TEST_DATA))))
# Engines in Python of the versions that the Java packages have: ONNX Runtime in an environment of its own, TensorFlow
# in that of make test-old-tflite.
POM_VERSION = $(shell sed -n 's/.*<$(1)\.version>\(.*\)<.*/\1/p' android_demo/pom.xml)
ONNX_PYTHON := $(ANDROID)/python-onnxruntime/bin/python
TFLITE_PYTHON = $(OLD_TFLITE)/bin/python
empty :=
colons = $(subst $(empty) $(empty),:,$(strip $(1)))
arrays = $(foreach bundle,$(TEST_BUNDLES),$(CURDIR)/$(ANDROID)/arrays-$(notdir $(bundle)))

.PHONY: android-test android-tflite android-tools

android-test: $(READY) android-tflite $(ONNX_PYTHON) $(OLD_TFLITE_READY) ## the Android code's tests on a desktop JVM, with real engines (TEST_BUNDLES=folders)
	@$(if $(filter $(SMALL_BUNDLES)/%,$(TEST_BUNDLES)),$(BIN)/python -m tests.small_bundles)
	@for bundle in $(TEST_BUNDLES); do test -f $$bundle/manifest.json || { \
		echo "$$bundle is no bundle: make export writes it, or name others: make android-test TEST_BUNDLES=..." >&2; exit 1; }; done
	@$(BIN)/python -m tests.android.write_pictures $(ANDROID)/cases
	@$(BIN)/python -m tests.android.write_texts $(ANDROID)/cases
	@for bundle in $(TEST_BUNDLES); do $(BIN)/python -m tests.android.write_arrays $$bundle \
		$(ANDROID)/arrays-$$(basename $$bundle) --onnx-python $(ONNX_PYTHON) --tflite-python $(TFLITE_PYTHON) \
		--library $(TFLITE) $(addprefix --data ,$(TEST_DATA)) || exit 1; done
	@mvn -q -B -f android_demo/pom.xml verify -Dpocketvl.cases=$(CURDIR)/$(ANDROID)/cases \
		-Dpocketvl.arrays=$(call colons,$(arrays)) -Dpocketvl.bundles=$(call colons,$(abspath $(TEST_BUNDLES))) \
		-Dpocketvl.tflite.library=$(CURDIR)/$(TFLITE) $(APP_TESTS)
	@$(if $(APP_TESTS),,echo "the app's screens were not tested: aapt2 is missing (make android-packages)" >&2)

android-tflite: android-tools ## TFLite's library out of its AAR, for a desktop JVM, in build/android/tflite
	@mvn -q -B -f android_demo/pom.xml -pl tflite-classes process-resources
	@$(PYTHON) android_demo/native/load_on_desktop.py \
		android_demo/tflite-classes/target/aar/tensorflow-lite.aar $(dir $(TFLITE))

android-tools:
	@for tool in java:openjdk-17-jdk-headless mvn:maven cc:gcc; do command -v $${tool%%:*} >/dev/null || { \
		echo "no $${tool%%:*}: apt-get install $${tool#*:}" >&2; exit 1; }; done
	@java -version 2>&1 | grep -q '"\(1[7-9]\|[2-9][0-9]\)' || { \
		echo "the Android code needs JDK 17 or newer: apt-get install openjdk-17-jdk-headless" >&2; exit 1; }

$(ONNX_PYTHON): | $(READY)
	@$(BIN)/uv venv --quiet --clear --python $(BIN)/python $(ANDROID)/python-onnxruntime
	@$(BIN)/uv pip install --quiet --python $@ onnxruntime==$(call POM_VERSION,onnxruntime) || { rm -f $@; exit 1; }
