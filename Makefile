# make demo   from nothing to a model that answers in a notebook
# make lab    the same notebook, live in JupyterLab
# make test   from nothing to the whole test suite
# make test-offline   the whole test suite where there is no network but this machine's own: Linux, with `unshare` and `ip`
# make test-emulated   the kernels for processors that this one is not, on Debian; see CONTRIBUTING
# make fuzz   opens CASES=100000 damaged model files, from case FIRST=0 on, and saves those that something is wrong with
# make fuzz-guided   searches for HOURS=0.5 each among models, conversations, templates and packed weights (or TARGET=model)
#             for what reaches new code, and saves what something is wrong with; Python 3.11 to 3.13
# make test-sanitized   the kernels under AddressSanitizer and UndefinedBehaviorSanitizer; some minutes to compile
# make test-valgrind   the portable kernels under Valgrind, on Debian: apt install valgrind
# make test-long   loads, asks and closes models 200 times
# make soak   HOURS=2 of one Jupyter kernel, in turns drawn by chance, each compared with what must come of it
# make bench  measures speed, also of MODELS="FILE ...", beside the other engines that `make peers` installs
# make damaged   gives CASES=1000 damaged model files to nbllm and to those engines; on Linux
# make stopping  TRIALS=20 interrupts of cells in which nbllm and those engines write, read a prompt and load
# make peers  installs them, in a Python of their own: some minutes, for llama.cpp is compiled for this processor
#
# Needs Python 3.11 or newer, g++ and make; everything else goes into .venv. Another Python: make PYTHON=python3.13 demo

PYTHON ?= python3
VENV := $(CURDIR)/.venv
SOURCES := $(shell find nbllm kernels_src kernelspec -type f -not -name '*.pyc') meson.build meson.options pyproject.toml README.md
SANITIZED := portable,avx2,avx512vnni,neon,neondot

export PATH := $(VENV)/bin:$(PATH)

.PHONY: demo lab test test-offline test-emulated test-sanitized test-valgrind test-long fuzz fuzz-guided soak
.PHONY: bench damaged stopping peers clean
.SECONDARY:

# Notebooks and tests run in a folder from which `import nbllm` finds what is installed, not this folder's sources.

demo: $(VENV)/installed-demo
	nbllm pull
	cd demo_notebooks && python run.py 01_first_chat.ipynb

lab: $(VENV)/installed-lab
	nbllm pull
	cd demo_notebooks && jupyter lab 01_first_chat.ipynb

test: $(VENV)/installed-test $(VENV)/installed-ipykernel6
	@command -v chromium > /dev/null || echo "There is no chromium, so the browser tests are skipped; on Debian: apt install chromium"
	cd tests && NBLLM_IPYKERNEL6=$(VENV)/ipykernel6/bin/python pytest

test-offline: $(VENV)/installed-test $(VENV)/installed-ipykernel6
	nbllm pull
	cd tests && NBLLM_IPYKERNEL6=$(VENV)/ipykernel6/bin/python unshare --map-root-user --net sh -c 'ip link set lo up && pytest'

test-emulated: $(VENV)/installed-test | $(VENV)/arm64
	cd tests && NBLLM_ARM64=$(VENV)/arm64 pytest emulated/check_emulated.py

test-sanitized: $(VENV)/sanitized/installed
	cd tests && python sanitized/run.py $(VENV)/sanitized

test-valgrind: $(VENV)/installed-test
	cd tests && python sanitized/valgrind.py

test-long: $(VENV)/installed-test
	cd tests && NBLLM_ROUNDS=200 pytest --timeout 600 unit/test_lifetime.py

fuzz: $(VENV)/installed-test
	cd tests && python fuzz/run.py $(or $(CASES),100000) $(or $(FIRST),0) $(VENV)/fuzz

fuzz-guided: $(VENV)/installed-test $(VENV)/installed-atheris
	cd tests && python fuzz/guided.py --hours $(or $(HOURS),0.5) $(if $(TARGET),--target $(TARGET)) $(VENV)/fuzz

soak: $(VENV)/installed-test
	nbllm pull
	cd tests && python soak/run.py --hours $(or $(HOURS),2) $(if $(SEED),--seed $(SEED))

bench: $(VENV)/installed-demo
	nbllm pull
	cd benchmarks && python run.py --peer-python $(VENV)/peers/bin/python --models $(abspath $(MODELS))

damaged: $(VENV)/installed-test
	nbllm pull
	cd benchmarks && python damaged.py --cases $(or $(CASES),1000) --peer-python $(VENV)/peers/bin/python

stopping: $(VENV)/installed-test
	nbllm pull
	cd benchmarks && python stopping_peers.py --trials $(or $(TRIALS),20) --peer-python $(VENV)/peers/bin/python

peers: | $(VENV)
	$(PYTHON) -m venv $(VENV)/peers
	$(VENV)/peers/bin/python -m pip install -r benchmarks/requirements.txt

clean:
	rm -rf .venv build

$(VENV):
	@$(PYTHON) -c 'import sys; sys.version_info >= (3, 11) or sys.exit("nbllm needs Python 3.11 or newer and $(PYTHON) is older: make PYTHON=... names another")'
	$(PYTHON) -m venv $@

$(VENV)/requirements-%.txt: pyproject.toml | $(VENV)
	@echo "Installing what nbllm needs."
	python -c 'import tomllib; all = tomllib.load(open("pyproject.toml", "rb")); project = all["project"]; print(*all["build-system"]["requires"], *project["dependencies"], *project["optional-dependencies"]["$*"], sep="\n")' > $@.new
	python -m pip install -r $@.new
	mv $@.new $@

# A second Python that has the oldest ipykernel, and finds nbllm and all else behind that in the first one.
$(VENV)/installed-ipykernel6: tests/requirements-ipykernel6.txt | $(VENV)/installed-test
	python -m venv $(VENV)/ipykernel6
	$(VENV)/ipykernel6/bin/python -m pip install -r $<
	python -c 'import sysconfig; print(*{sysconfig.get_path(name) for name in ("purelib", "platlib")}, sep="\n")' \
	  > "$$($(VENV)/ipykernel6/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/first.pth"
	touch $@

$(VENV)/installed-atheris: tests/requirements-atheris.txt | $(VENV)
	python -m pip install -r $<
	touch $@

$(VENV)/arm64: | $(VENV)
	rm -rf $@.new
	tests/emulated/make_arm64.sh $@.new
	mv $@.new $@

$(VENV)/sanitized/installed: $(VENV)/requirements-test.txt $(SOURCES)
	@echo "Compiling the kernels with sanitizers: some minutes the first time."
	python -m pip install -v --no-deps --no-build-isolation --upgrade --target $(VENV)/sanitized \
	  --config-settings=build-dir=$(VENV)/build-sanitized \
	  --config-settings=setup-args=-Dsanitized=true --config-settings=setup-args=-Dvariants=$(SANITIZED) .
	touch $@

# The build folder is kept, so that the next build compiles only what has changed.
$(VENV)/installed-%: $(VENV)/requirements-%.txt $(SOURCES)
	@echo "Compiling the kernels and installing nbllm: some minutes the first time."
	python -m pip install -v --no-deps --no-build-isolation --config-settings=build-dir=$(VENV)/build .
	touch $@
