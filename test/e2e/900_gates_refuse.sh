#!/bin/sh
# timeout 1200
# Every gate of `make lint` says no to what it is there for.
. "$(dirname "$0")/lib.sh"
needs gcc clang-format shellcheck

mkdir "$TMP/repo"
(cd "$ROOT" && tar cf - --exclude='./build*' --exclude=.git .) | tar xf - -C "$TMP/repo"
cd "$TMP/repo" || exit 1
export O="$TMP/o"
mkdir -p "$O/obj/sampler" "$O/gen"

# refuses gate "what" 'text that the gate prints'
refuses() {
    if said=$("scripts/check-$1.sh" 2>&1); then
        not_ok "$1 refuses $2"
        note "$said"
    else
        matches "$1 refuses $2" "$said" "$3"
    fi
}

# bad_object: sampler/bad.c from stdin, compiled as the product is.
bad_object() {
    cat >sampler/bad.c
    gcc -std=gnu11 -D_GNU_SOURCE -I. -O2 -fPIC -ffunction-sections -w -c -o "$O/obj/sampler/bad.o" \
        sampler/bad.c
}

# bad_library flags...: a library from stdin.
bad_library() {
    gcc -shared -O2 -fPIC -w -Wl,-z,now -Wl,--build-id -x c -o "$O/libprofep.so" - "$@"
    cp "$O/libprofep.so" "$O/libprofep.so.debug"
}

echo 'int pep_fine;' | bad_library -lc
check "needed accepts libc" scripts/check-needed.sh
echo 'int pep_fine;' | bad_library -Wl,--no-as-needed -lm
refuses needed "libm" 'libm\.so'
refuses exports "a name that is not in the list" 'not in the list: *pep_fine'
echo '__thread char pep_many[257]; char *f(int i) { return &pep_many[i]; }' |
    bad_library -ftls-model=initial-exec
refuses tls "257 bytes" '257 bytes of 256'
echo '__thread int pep_one; int *f(void) { return &pep_one; }' | bad_library
refuses tls "a dynamic access" 'dynamic TLS'
echo 'char pep_large[1100000] = {1};' | bad_library
refuses size "more than 1 MB" '1[0-9]{6} bytes of 1048576'
echo '#include <stdlib.h>
void *f(void) { return malloc(1); }' | bad_library
refuses malloc "an import of the whole" 'imports malloc'

bad_object <<'END'
#include <stdlib.h>
#include <stdio.h>
#include "sampler/rt/attrs.h"
void pep_unmarked(void);
extern void *pep_block;
void pep_hook_of_ours(void);
__attribute__((noinline)) static void unmarked_static(void) { __asm__(""); }
PEP_SIGNAL_SAFE void pep_bad_handler(void) { free(pep_block); unmarked_static(); pep_unmarked();
    pep_hook_of_ours(); }
PEP_HOOK_SAFE void pep_hook_of_ours(void) { pep_bad_handler(); printf("no"); }
void pep_unmarked(void) { __asm__(""); }
void pep_hook_by_name_alone(void) { free(pep_block); }
END
for name in free unmarked_static pep_unmarked pep_hook_of_ours; do
    refuses context "$name from the signal room" "signal room leads to .*$name"
done
refuses context "stdio from the hook room" 'hook room leads to (printf|puts)'
is "context goes by the marker, not by the name" \
    "$(scripts/check-context.sh | grep -c 'hook room leads to free')" 0
refuses malloc "free in an object" 'sampler/bad.o calls free'
refuses malloc "stdio in an object" 'sampler/bad.o calls (printf|puts)'
refuses format "what clang-format would change" 'sampler/bad\.c differs'

printf '#include "http/server.h"\n#include <zlib.h>\n' >sampler/bad.c
refuses layers "an upward include" 'bad.c:1 may not include http/server.h'
refuses layers "a third party outside its owner" 'bad.c:2 may not include zlib.h'
{
    echo 'int pep_long(int a, int b, int c, int d, int e, int f) {'
    yes '    a++;' | head -n 60
    echo '}'
} >sampler/bad.c
refuses limits "a long function" 'function of 62 lines'
refuses limits "six parameters" '6 parameters'
yes 'int x;' | head -n 501 >sampler/bad.c
refuses limits "a long file" '501 lines'
echo 'int pep_x;' >sampler/bad.h
refuses limits "a header without its block" 'bad\.h: does not say "Model:"'
rm sampler/bad.*
# shellcheck disable=SC2016
printf '#!/bin/sh\necho $1\n' >scripts/bad.sh
refuses scripts "an unquoted variable" 'SC2086'
mark=TO
echo "# ${mark}DO: later" >scripts/bad.sh
refuses words "an unfinished mark" 'bad\.sh'
done_testing
