# TensorFlow Lite 2.16.1 is what Maven Central has for Android, and tensorflow-cpu of that version is the same code:
# which variants it computes rightly, and whether min_engine in their manifests keeps the others out.

OLD_TFLITE ?= build/tf216
OLD_TFLITE_BUNDLES ?= $(wildcard build/tabletop-clip build/tabletop-vilt)
OLD_TFLITE_READY = $(OLD_TFLITE)/.ready-$(call sum,requirements/old_engine.txt)
OLD_TFLITE_TINY := build/old-engine

.PHONY: test-old-tflite
test-old-tflite: $(READY) $(OLD_TFLITE_READY) ## every TFLite variant on TensorFlow Lite 2.16.1: right, or refused by min_engine
	@mkdir -p build
	@OMP_NUM_THREADS=1 $(BIN)/python -m tests.old_engine.bundles $(OLD_TFLITE_TINY) >$(OLD_TFLITE_TINY).txt
	@OMP_NUM_THREADS=1 PYTHONPATH=runtime:. $(OLD_TFLITE)/bin/python -m tests.old_engine.judge --engine tensorflow \
		$$(cat $(OLD_TFLITE_TINY).txt) $(OLD_TFLITE_BUNDLES)

$(OLD_TFLITE_READY): $(LOCKED)
	@echo "installing TensorFlow 2.16.1 into $(OLD_TFLITE); about a minute, once" >&2
	@rm -f $(OLD_TFLITE)/.ready-*
	@$(BIN)/uv venv --quiet --allow-existing --python $(BIN)/python $(OLD_TFLITE)
	@$(BIN)/uv pip sync --quiet --python $(OLD_TFLITE)/bin/python --require-hashes requirements/old_engine.txt
	@touch $@
