/*
 * The host's descriptors of signalfd(2) that want our number.
 *
 * Model:   they hold it only while some thread gives way to a foreign one (cpu_park.c): at other
 *          times what is pending of our number, for the moment between its sending and the
 *          handler, is ours, and whoever reads the descriptor in that moment would get it.
 * Writers: note: hooks. show: a thread that begins or ends to give way.  [signal]
 * Readers: the same.
 * Memory:  static.
 * When full: a descriptor never shows our number.
 *
 * Source: signalfd(2): with a descriptor that is one it changes its set, with any other it fails.
 */
#include <sys/syscall.h>

#include "sampler/cpu_internal.h"
#include "sampler/rt/atomics.h"

#define NOTES_MAX 64

static struct {
    int number; /* + 1; 0: free */
    uint64_t set;
} notes[NOTES_MAX];

PEP_SIGNAL_SAFE static void give_set(int fd, uint64_t set) {
    (void)pep_os_call6(SYS_signalfd4, fd, (long)&set, sizeof set, 0, 0, 0);
}

PEP_SIGNAL_SAFE static uint64_t our_bit(void) {
    int sig = pep_load_relaxed(&pep_cpu.signal);
    return sig > 0 ? 1ull << (sig - 1) : 0;
}

PEP_SIGNAL_SAFE void pep_cpu_signalfd_note(int fd, uint64_t set) {
    bool is_wanted = (set & our_bit()) != 0;
    for (int i = 0; i < NOTES_MAX; i++) {
        int number = pep_load_relaxed(&notes[i].number);
        if (number != fd + 1)
            continue;
        pep_store_relaxed(&notes[i].set, set);
        if (!is_wanted)
            pep_store_release(&notes[i].number, 0);
        is_wanted = false;
    }
    for (int i = 0; i < NOTES_MAX && is_wanted; i++) {
        int free = 0;
        if (!pep_cas_acq_rel(&notes[i].number, &free, -1))
            continue;
        pep_store_relaxed(&notes[i].set, set);
        pep_store_release(&notes[i].number, fd + 1);
        is_wanted = false;
    }
    pep_fence_seq_cst(); /* pairs with give_way: it sees the note, or we see its way */
    if ((set & our_bit()) != 0 && pep_load_acquire(&pep_cpu.ways) != 0)
        give_set(fd, set);
}

PEP_SIGNAL_SAFE void pep_cpu_signalfd_show(bool is_shown) {
    for (int i = 0; i < NOTES_MAX; i++) {
        int number = pep_load_acquire(&notes[i].number);
        uint64_t set = pep_load_relaxed(&notes[i].set);
        if (number > 0)
            give_set(number - 1, is_shown ? set : set & ~our_bit());
    }
}
