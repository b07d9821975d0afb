# The demo app; the Makefile beside README.md includes this.

BUNDLES ?= build/tabletop-clip build/tabletop-vilt
ANDROID_PACKAGES := aapt zipalign apksigner openjdk-17-jdk-headless maven

.PHONY: android android-packages

android: ## build/android/pocketvl-demo.apk, signed and checked (BUNDLES=folders; ORT_AAR=path adds ONNX Runtime)
	@$(PYTHON) -m android_demo.build_apk $(if $(ORT_AAR),--ort-aar $(ORT_AAR)) $(BUNDLES)

android-packages: ## install what `make android` needs from Debian
	apt-get update -qq
	apt-get install -y --no-install-recommends $(ANDROID_PACKAGES)
