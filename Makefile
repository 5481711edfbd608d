# libprofep. `make help` lists the targets; everything made goes below $(O).

O        ?= build
DEPS     ?= $(O)/deps
PREFIX   ?= /usr/local
BINDIR   ?= $(PREFIX)/bin
LIBDIR   ?= $(PREFIX)/lib
MANDIR   ?= $(PREFIX)/share/man
DOCDIR   ?= $(PREFIX)/share/doc/profep
SHAREDIR ?= $(PREFIX)/share
OBJCOPY  ?= objcopy
STRIP    ?= strip
ifeq ($(origin CC),default)
CC := gcc
endif

comma := ,
Q := $(if $(V),,@)
say = $(if $(V),,@printf '  %-5s %s\n' '$(1)' '$(2)')

# -- flags: the user's CFLAGS and LDFLAGS come last, so they win ------------------------------

OPT      ?= -O2 -g
WARNINGS := -Wall -Wextra -Wshadow -Wstrict-prototypes -Wmissing-prototypes -Wvla -Wformat=2 \
            $(if $(WERROR),-Werror)
STRICTER := -Wconversion
SHAPE    := -fPIC -fvisibility=hidden -ftls-model=initial-exec -ffunction-sections \
            -fdata-sections -fasynchronous-unwind-tables -fexceptions -fno-plt
INCLUDES := -I. -I$(O)/gen -isystem $(DEPS)/include
SANITIZE :=
ALL_CFLAGS = -std=gnu11 -D_GNU_SOURCE $(INCLUDES) $(OPT) $(SHAPE) $(WARNINGS) $(SANITIZE) $(CFLAGS)

# -- sources --------------------------------------------------------------------------------

PRELOAD_SRC := $(wildcard preload/*.c)
CORE_SRC    := $(wildcard sampler/*.c sampler/rt/*.c encoder/*.c http/*.c)
ASSETS      := $(wildcard http/assets/* encoder/assets/*)
PROTOS      := $(wildcard encoder/proto/*.proto)
UNIT_SRC    := $(wildcard test/unit/test_*.c)
UNIT_HELPER := $(filter-out $(UNIT_SRC),$(wildcard test/unit/*.c))
PROG_C      := $(wildcard test/prog/*.c)
PROG_CXX    := $(wildcard test/prog/*.cpp)
BENCH_SRC   := $(wildcard test/bench/micro_*.c)
FUZZ_SRC    := $(wildcard test/fuzz/fuzz_*.c)
OWN_C       := $(PRELOAD_SRC) $(CORE_SRC) $(wildcard test/*/*.c)
OWN_H       := $(wildcard preload/*.h sampler/*.h sampler/rt/*.h encoder/*.h http/*.h test/*/*.h)

# A test may name what it is linked with in a comment: /* LDFLAGS: -Wl,--wrap=pep_os_map */
own_ldflags = $$(sed -n 's|^.*LDFLAGS: *||p' $(1) | sed 's|\*/.*||')
obj = $(patsubst %.c,$(O)/obj/%.o,$(1))
PRELOAD_OBJ := $(call obj,$(PRELOAD_SRC))
CORE_OBJ    := $(call obj,$(CORE_SRC))
GEN_PB      := $(patsubst encoder/proto/%.proto,$(O)/gen/%.pb.c,$(PROTOS))
GEN_OBJ     := $(GEN_PB:.c=.o) $(O)/gen/assets.o
GEN_H       := $(GEN_PB:.c=.h) $(O)/gen/assets.h
UNITS       := $(patsubst test/unit/%.c,$(O)/test/unit/%,$(UNIT_SRC))
PROGS       := $(patsubst test/prog/%.c,$(O)/test/prog/%,$(PROG_C)) \
               $(patsubst test/prog/%.cpp,$(O)/test/prog/%,$(PROG_CXX))
BENCHES     := $(patsubst test/bench/%.c,$(O)/test/bench/%,$(BENCH_SRC))
FUZZERS     := $(patsubst test/fuzz/%.c,$(O)/test/fuzz/%,$(FUZZ_SRC))

# libiberty demangles, libbacktrace reads lines; both without malloc of their own.
ARCHIVES := $(DEPS)/lib/libunwind-x86_64.a $(DEPS)/lib/libz.a $(DEPS)/lib/libiberty.a \
            $(DEPS)/lib/libbacktrace.a
NANOPB   := -l:libprotobuf-nanopb.a
SO       := $(O)/libprofep.so
EXPORTS  := $(wildcard preload/exports.map)
SO_FLAGS := -shared -Wl,-soname,libprofep.so $(addprefix -Wl$(comma)--version-script=,$(EXPORTS)) \
            -Wl,-z,now -Wl,-z,defs -Wl,-z,relro -Wl,-z,noexecstack -Wl,--gc-sections -Wl,--sort-section=name \
            -Wl,-Bsymbolic-functions -Wl,--build-id=sha1 -Wl,--as-needed -Wl,--exclude-libs,ALL \
            -static-libgcc
DEPS_STAMP := $(O)/deps.stamp
PATCHES    := $(wildcard sampler/unwind-patches/*.patch http/civetweb-patches/*.patch)

.PHONY: all test test-unit test-e2e lint golden bench soak demo install uninstall format asan ubsan tsan \
        fuzz clean distclean help progs deps
.DELETE_ON_ERROR:
.SUFFIXES:

all: $(SO) ## build/libprofep.so, the one file to copy (default)

# -- libraries from the distribution's sources ----------------------------------------------

deps: ## only the libraries inside libprofep.so, into $(DEPS)
	$(Q)scripts/deps $(DEPS)

$(DEPS_STAMP): scripts/deps $(PATCHES)
	@mkdir -p $(O)
	$(Q)CC="$(CC)" scripts/deps $(DEPS)
	@touch $@

# -- generated code -------------------------------------------------------------------------

$(O)/gen/%.pb.c $(O)/gen/%.pb.h: encoder/proto/%.proto $(wildcard encoder/proto/*.options) | $(DEPS_STAMP)
	$(call say,GEN,$@)
	@mkdir -p $(O)/gen
	$(Q)nanopb_generator.py -q -I encoder/proto -D $(O)/gen $(<F)

# pep_asset_<file name with _>[] and its _size; the arrays end with a NUL that is not counted.
$(O)/gen/assets.S: $(ASSETS) Makefile
	$(call say,GEN,$@)
	@mkdir -p $(O)/gen
	@{ printf '.section .rodata\n'; for file in $(ASSETS); do \
	    name=pep_asset_$$(basename $$file | tr -c 'A-Za-z0-9\n' _); \
	    printf '.global %s\n.hidden %s\n.type %s,@object\n.balign 16\n%s:\n.incbin "%s"\n' \
	        $$name $$name $$name $$name $$file; \
	    printf '.size %s, . - %s\n1: .byte 0\n' $$name $$name; \
	    printf '.global %s_size\n.hidden %s_size\n.type %s_size,@object\n.balign 8\n' \
	        $$name $$name $$name; \
	    printf '%s_size: .quad 1b - %s\n.size %s_size, 8\n' $$name $$name $$name; done; \
	    printf '.section .note.GNU-stack,"",@progbits\n'; } >$@

$(O)/gen/assets.h: $(ASSETS) Makefile
	$(call say,GEN,$@)
	@mkdir -p $(O)/gen
	@{ printf '#ifndef PEP_GEN_ASSETS_H\n#define PEP_GEN_ASSETS_H\n#include <stddef.h>\n'; \
	    for file in $(ASSETS); do \
	    name=pep_asset_$$(basename $$file | tr -c 'A-Za-z0-9\n' _); \
	    printf 'extern const char %s[];\nextern const size_t %s_size;\n' $$name $$name; done; \
	    printf '#endif\n'; } >$@

# Named outside of patterns these are no intermediate files: kept, and made again when missing.
$(GEN_PB:.c=.o): $(GEN_PB) $(GEN_H)

$(O)/gen/assets.o: $(O)/gen/assets.S $(ASSETS)
	$(call say,AS,$@)
	$(Q)$(CC) -c -o $@ $<

$(O)/gen/%.pb.o: $(O)/gen/%.pb.c $(O)/gen/%.pb.h
	$(call say,CC,$@)
	$(Q)$(CC) $(ALL_CFLAGS) -w -MMD -MP -c -o $@ $<

# -- objects --------------------------------------------------------------------------------

$(O)/obj/encoder/%.o $(O)/obj/http/%.o: WARNINGS += $(STRICTER)
UNWIND_INCLUDES := -isystem $(DEPS)/src/libunwind/include \
    -isystem $(DEPS)/src/libunwind/include/tdep-x86_64 -isystem $(DEPS)/src/libunwind/src
$(O)/obj/sampler/unwind%.o: INCLUDES += $(UNWIND_INCLUDES)
# libunwind's headers assert, and an assertion would end the host.
$(O)/obj/sampler/unwind%.o: SHAPE += -DNDEBUG
# What is defined there is not what the compiler knows by these names.
$(O)/obj/preload/hook_malloc%.o: SHAPE += -fno-builtin
$(O)/obj/http/%.o: INCLUDES += -isystem $(DEPS)/src/civetweb/src

$(O)/obj/%.o: %.c Makefile | $(GEN_H) $(DEPS_STAMP)
	$(call say,CC,$<)
	@mkdir -p $(@D)
	$(Q)$(CC) $(ALL_CFLAGS) -MMD -MP -c -o $@ $<

# -- the product ----------------------------------------------------------------------------

$(SO).debug: $(PRELOAD_OBJ) $(CORE_OBJ) $(GEN_OBJ) $(DEPS_STAMP) $(EXPORTS) Makefile
	$(call say,LD,$@)
	$(Q)$(CC) $(SO_FLAGS) $(OPT) $(SANITIZE) -o $@ $(filter %.o,$^) $(ARCHIVES) $(NANOPB) $(LDFLAGS)

$(SO): $(SO).debug
	$(call say,STRIP,$@)
	$(Q)$(OBJCOPY) --strip-all --add-gnu-debuglink=$< $< $@

# -- tests ----------------------------------------------------------------------------------

# Everything but preload/, as an archive: a test pulls in what it needs and nothing else.
CORE_A := $(O)/obj/core.a
CORE_GROUP = -Wl,--start-group $(CORE_A) $(ARCHIVES) $(NANOPB) -Wl,--end-group
$(CORE_A): $(CORE_OBJ) $(GEN_OBJ)
	$(call say,AR,$@)
	@rm -f $@
	$(Q)$(AR) rcs $@ $^

$(UNITS): $(call obj,$(UNIT_HELPER))

$(O)/test/unit/%: test/unit/%.c $(CORE_A) $(DEPS_STAMP)
	$(call say,LD,$@)
	@mkdir -p $(@D)
	$(Q)$(CC) $(ALL_CFLAGS) -MMD -MP -MT $@ -MF $@.d -o $@ $< $(filter %.o,$^) \
	    $(call own_ldflags,$<) -Wl,--gc-sections \
	    $(CORE_GROUP) -lcmocka -lm $(LDFLAGS)

# The one program that links the product's objects: the server without the preload.
$(O)/test/prog/serve: test/prog/serve.c $(CORE_A) $(DEPS_STAMP)
	$(call say,LD,$@)
	@mkdir -p $(@D)
	$(Q)$(CC) $(ALL_CFLAGS) -o $@ $< -Wl,--gc-sections $(CORE_GROUP) -lm $(LDFLAGS)

$(O)/test/prog/%: test/prog/%.c
	$(call say,LD,$@)
	@mkdir -p $(@D)
	$(Q)$(CC) -std=gnu11 -D_GNU_SOURCE -O2 -g -fno-omit-frame-pointer -I. $(CFLAGS) -o $@ $< \
	    $(call own_ldflags,$<) -lpthread -ldl -lm $(LDFLAGS)

$(O)/test/prog/%: test/prog/%.cpp
	$(call say,LD,$@)
	@mkdir -p $(@D)
	$(Q)$(CXX) -std=c++17 -O2 -g -o $@ $< $(call own_ldflags,$<) -lpthread -ldl

$(O)/test/bench/%: test/bench/%.c $(CORE_A) $(DEPS_STAMP)
	$(call say,LD,$@)
	@mkdir -p $(@D)
	$(Q)$(CC) $(ALL_CFLAGS) -o $@ $< -Wl,--gc-sections $(CORE_GROUP) \
	    $(call own_ldflags,$<) -lm $(LDFLAGS)

progs: $(PROGS) ## the small target programs of the end-to-end tests

test: ## unit and end-to-end tests and the gates; last line: N passed, N failed
	$(Q)scripts/deps --test
	$(Q)$(MAKE) --no-print-directory all $(UNITS) progs
	$(Q)O=$(O) DEPS=$(abspath $(DEPS)) test/run all

test-unit: ## unit tests alone
	$(Q)scripts/deps --test
	$(Q)$(MAKE) --no-print-directory $(UNITS)
	$(Q)O=$(O) DEPS=$(abspath $(DEPS)) test/run unit

test-e2e: ## end-to-end tests alone; T=012 runs those whose name starts so
	$(Q)scripts/deps --test
	$(Q)$(MAKE) --no-print-directory all progs
	$(Q)O=$(O) DEPS=$(abspath $(DEPS)) test/run e2e $(T)

lint: all ## the gates, each with what it measured
	$(Q)scripts/deps --lint
	$(Q)status=0; for gate in scripts/check-*.sh; do \
	    O=$(O) DEPS=$(DEPS) $$gate || { echo "  $$gate: not passed"; status=1; }; done; exit $$status

format: ## rewrites C sources in the house's format
	$(Q)clang-format -i $(OWN_C) $(OWN_H) $(PROG_CXX)

golden: ## rewrites test/golden from what the code makes now; look at the difference
	$(Q)GOLDEN=1 $(MAKE) --no-print-directory test-unit

bench: all progs $(BENCHES) ## the figures, each beside its peer in the same run
	$(Q)scripts/deps --bench
	$(Q)BUILD=$(abspath $(O)) DEPS=$(abspath $(DEPS)) test/bench/run

soak: all progs $(BENCHES) ## tests at length: 10^9 operations, half an hour of calls to be cut short
	$(Q)scripts/deps --test
	$(Q)O=$(abspath $(O)) test/soak

demo: ## redis-server under load, profiled: the URL, the top functions, a flame graph
	$(Q)scripts/deps --test
	$(Q)$(MAKE) --no-print-directory all
	$(Q)O=$(O) scripts/demo

# -- sanitizers: unit tests in a build directory of their own ---------------------------------

# Sanitizers are slow: a test may take longer.
asan ubsan tsan: export TEST_SECONDS = 180

asan: ## unit tests under the address and the undefined behaviour sanitizer
	$(Q)$(MAKE) --no-print-directory O=$(O)-asan DEPS=$(DEPS) test-unit OPT='-O1 -g' \
	    SANITIZE='-fsanitize=address,undefined -fno-sanitize-recover=all -fno-omit-frame-pointer -DPEP_DEBUG'

ubsan: ## unit tests under the undefined behaviour sanitizer alone
	$(Q)$(MAKE) --no-print-directory O=$(O)-ubsan DEPS=$(DEPS) test-unit OPT='-O1 -g' \
	    SANITIZE='-fsanitize=undefined -fno-sanitize-recover=all -DPEP_DEBUG'

tsan: ## unit tests under the thread sanitizer
	$(Q)$(MAKE) --no-print-directory O=$(O)-tsan DEPS=$(DEPS) test-unit OPT='-O1 -g' \
	    SANITIZE='-fsanitize=thread -DPEP_DEBUG'

FUZZ_SECONDS ?= 20
fuzz: ## each fuzzer for FUZZ_SECONDS (20), from its corpus
	$(Q)scripts/deps --fuzz
	$(Q)$(MAKE) --no-print-directory $(FUZZERS)
	$(Q)for fuzzer in $(FUZZERS); do name=$$(basename $$fuzzer); \
	    corpus=test/fuzz/corpus/$${name#fuzz_}; mkdir -p $(O)/fuzz/$$name; \
	    printf '  FUZZ  %s\n' $$name; \
	    $$fuzzer -max_total_time=$(FUZZ_SECONDS) -print_final_stats=1 -verbosity=0 \
	        -artifact_prefix=$(O)/fuzz/ $$(ls test/fuzz/$$name.dict 2>/dev/null | sed s/^/-dict=/) \
	        $(O)/fuzz/$$name $$(ls -d $$corpus 2>/dev/null) || exit 1; \
	done

# libFuzzer is clang's; the sources it drives are compiled again with its instrumentation.
# backtrace.h is one of gcc's own headers.
$(O)/test/fuzz/%: test/fuzz/%.c $(CORE_SRC) $(GEN_PB) $(O)/gen/assets.o $(DEPS_STAMP)
	$(call say,FUZZ,$@)
	@mkdir -p $(@D)
	$(Q)clang $(ALL_CFLAGS) -O1 -w -fsanitize=fuzzer,address,undefined -DPEP_DEBUG \
	    $(UNWIND_INCLUDES) -isystem $(DEPS)/src/civetweb/src \
	    -idirafter $$($(CC) -print-file-name=include) -o $@ $< $(CORE_SRC) $(GEN_PB) \
	    $(O)/gen/assets.o -Wl,--gc-sections $(ARCHIVES) $(NANOPB) -lm

# -- installation: one list for both ways -----------------------------------------------------

INSTALLED := $(SO):$(LIBDIR)/libprofep.so:644 \
    $(foreach f,$(wildcard scripts/profep-run scripts/profep),$(f):$(BINDIR)/$(notdir $(f)):755) \
    scripts/companion/doctor:$(SHAREDIR)/profep/doctor:755 \
    scripts/completions/profep.bash:$(SHAREDIR)/bash-completion/completions/profep:644 \
    scripts/completions/_profep:$(SHAREDIR)/zsh/site-functions/_profep:644 \
    scripts/completions/profep.fish:$(SHAREDIR)/fish/vendor_completions.d/profep.fish:644 \
    $(foreach f,options.sh processes.awk,scripts/companion/$(f):$(SHAREDIR)/profep/$(f):644) \
    $(foreach f,$(wildcard scripts/man/*.1),$(f):$(MANDIR)/man1/$(notdir $(f)):644) \
    $(foreach f,$(wildcard scripts/man/*.7),$(f):$(MANDIR)/man7/$(notdir $(f)):644) \
    $(foreach f,$(wildcard README.md CHANGELOG.md LICENSE NOTICE),$(f):$(DOCDIR)/$(f):644)

install: all ## into PREFIX (/usr/local), below DESTDIR; BINDIR LIBDIR MANDIR DOCDIR SHAREDIR
	$(Q)for item in $(INSTALLED); do IFS=:; set -- $$item; unset IFS; \
	    printf '  INST  %s\n' "$(DESTDIR)$$2"; \
	    install -D -m $$3 $$1 "$(DESTDIR)$$2" || exit 1; done

uninstall: ## removes what install put there
	$(Q)for item in $(INSTALLED); do IFS=:; set -- $$item; unset IFS; \
	    printf '  RM    %s\n' "$(DESTDIR)$$2"; rm -f "$(DESTDIR)$$2"; done
	$(Q)rmdir "$(DESTDIR)$(DOCDIR)" "$(DESTDIR)$(SHAREDIR)/profep" 2>/dev/null || :

compile_commands.json: $(CORE_SRC) $(PRELOAD_SRC) Makefile ## for editors and clang-tidy
	$(Q){ sep='['; for file in $(CORE_SRC) $(PRELOAD_SRC); do printf '%s\n{"directory":"%s","file":"%s",' \
	    "$$sep" "$(CURDIR)" $$file; printf '"command":"$(CC) $(ALL_CFLAGS) -c %s"}' $$file; sep=,; done; \
	    printf '\n]\n'; } >$@

clean: ## removes what was built, keeps the libraries in $(DEPS)
	$(Q)rm -rf $(O)/obj $(O)/gen $(O)/test $(DEPS_STAMP) $(SO) $(SO).debug

distclean: ## removes everything below $(O)
	$(Q)rm -rf $(O)

help: ## this list
	@awk -F ':.*## ' '/^[a-z_.-]+:.*## / {printf "  make %-22s %s\n", $$1, $$2}' $(MAKEFILE_LIST)
	@printf '\n  O=dir where to build (build)  V=1 whole commands  WERROR=1 warnings are errors\n'
	@printf '  DEPS=dir libraries (build/deps)  PROFEP_DEPS_DIR=dir source packages without apt\n'
	@printf '  CC CFLAGS LDFLAGS OPT (-O2 -g)  PREFIX DESTDIR BINDIR LIBDIR MANDIR DOCDIR SHAREDIR\n'

-include $(shell find $(O)/obj $(O)/gen $(O)/test -name '*.d' 2>/dev/null)
