# The demo app; the Makefile beside README.md includes this.

BUNDLES ?= build/tabletop-clip build/tabletop-vilt
# Commands, and the packages of Debian that have them.
ANDROID_COMMANDS := aapt2:aapt zipalign:zipalign apksigner:apksigner javac:openjdk-17-jdk-headless mvn:maven
ANDROID_PACKAGES = $(foreach each,$(ANDROID_COMMANDS),$(if $(shell command -v $(firstword $(subst :, ,$(each)))),,$(lastword $(subst :, ,$(each)))))

.PHONY: android android-packages

android: ## build/android/pocketvl-demo.apk, signed and checked (BUNDLES=folders; ORT_AAR=path adds ONNX Runtime)
	@$(PYTHON) -m android_demo.build_apk $(if $(ORT_AAR),--ort-aar $(ORT_AAR)) $(BUNDLES)

android-packages: ## install what `make android` needs from Debian
	@$(if $(strip $(ANDROID_PACKAGES)),apt-get update -qq && \
		apt-get install -y --no-install-recommends $(ANDROID_PACKAGES),echo "all that make android needs is here")
