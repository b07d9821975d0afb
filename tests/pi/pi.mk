# A Raspberry Pi without a Raspberry Pi: the runtime under an emulated arm64 Python; the Makefile beside README.md
# includes this.

PI := build/pi
export DEBIAN_MIRROR
PI_BUNDLES ?= $(wildcard build/tabletop-clip build/tabletop-vilt)
PI_PACKAGES := openssh-client openssh-server debian-archive-keyring

.PHONY: pi-test profile-pi-emulated pi-packages

pi-test: $(READY) ## the runtime's wheel under an emulated Raspberry Pi, its outputs against this machine's (PI_BUNDLES=folders)
	@$(BIN)/python -m tests.pi.check $(PI) $(PI_BUNDLES)

profile-pi-emulated: $(READY) ## `pocketvl profile --ssh` against the emulated Raspberry Pi behind a local sshd (BUNDLE=folder)
	@$(if $(BUNDLE)$(PI_BUNDLES),,$(BIN)/python -m tests.small_bundles)
	@$(BIN)/python -m tests.pi.profile $(PI) $(or $(BUNDLE),$(firstword $(PI_BUNDLES)),$(SMALL_BUNDLES)/clip)

pi-packages: ## install what `make pi-test` and the tests of devices behind ssh need from Debian
	@dpkg -s $(PI_PACKAGES) >/dev/null 2>&1 || { apt-get -qq update && \
		DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends $(PI_PACKAGES) >/dev/null; }
