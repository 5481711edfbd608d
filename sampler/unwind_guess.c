#include "sampler/unwind_guess.h"
#include "sampler/rt/attrs.h"

#include "sampler/modules.h"
#include "sampler/rt/atomics.h"
#include "sampler/rt/os.h"

#define FRAME_BYTES_MAX (1 << 20) /* a frame larger than this is not believed */
#define NEAR_BYTES (256u << 20)
#define LEAF_BYTES_MAX 4096 /* from a function's start to where it has no frame yet */

/* e8 rel32, or ff /2 in its lengths of 2 to 7 bytes (Intel SDM volume 2, CALL and ModR/M). */
PEP_SIGNAL_SAFE bool pep_guess_is_after_call(struct pep_unwind_memory *memory, uintptr_t address) {
    uint8_t b[7];
    if (address < sizeof(b) || !pep_unwind_read(memory, address - sizeof(b), b, sizeof(b)))
        return false;
    if (b[2] == 0xe8)
        return true;
    for (int length = 2; length <= 7; length++) {
        const uint8_t *p = b + sizeof(b) - length;
        if (p[0] != 0xff || (p[1] >> 3 & 7) != 2)
            continue;
        int mode = p[1] >> 6, rm = p[1] & 7;
        bool has_sib = mode != 3 && rm == 4;
        int expected = 2 + has_sib;
        if (mode == 1)
            expected += 1;
        else if (mode == 2 || (mode == 0 && rm == 5))
            expected += 4;
        else if (mode == 0 && has_sib && (p[2] & 7) == 5)
            expected += 4;
        if (expected == length)
            return true;
    }
    return false;
}

/* Return addresses that were confirmed, by the version of the module table: reading code takes a
 * system call, and stacks of generated code show the same addresses again and again. A word is
 * address and version together; a newer one takes the place of an older. */
#define CONFIRMED_LOG2 12
static uint64_t confirmed[1 << CONFIRMED_LOG2] PEP_LARGE;

PEP_SIGNAL_SAFE static uint64_t *confirmed_place(uintptr_t address) {
    return &confirmed[address * UINT64_C(0x9e3779b97f4a7c15) >> (64 - CONFIRMED_LOG2)];
}

PEP_SIGNAL_SAFE static uint64_t confirmed_word(uintptr_t address) {
    return (address & ((UINT64_C(1) << 48) - 1)) | (uint64_t)pep_modules_version() << 48;
}

PEP_SIGNAL_SAFE bool pep_guess_is_confirmed(uintptr_t address) {
    return pep_load_relaxed(confirmed_place(address)) == confirmed_word(address);
}

/* JIT code made since the last refresh is not in the table; near the frame it is believed. */
PEP_SIGNAL_SAFE static bool is_return_address(struct pep_unwind_memory *memory, uintptr_t address,
                                              uintptr_t pc) {
    if (address < 4096 || pep_unwind_is_direct(memory, address))
        return false;
    if (pep_guess_is_confirmed(address))
        return true;
    bool is_near = address - pc + NEAR_BYTES < 2 * (uintptr_t)NEAR_BYTES;
    if (!pep_modules_is_executable(address - 1) && !(is_near && pep_modules_find(pc) == NULL))
        return false;
    if (!pep_guess_is_after_call(memory, address))
        return false;
    pep_store_relaxed(confirmed_place(address), confirmed_word(address));
    return true;
}

/* BP points to the saved BP, the return address lies above it. A saved BP of zero marks the first
 * frame (psABI 3.4.1); what Go keeps above it was not pushed by a call. */
PEP_SIGNAL_SAFE static bool follow_bp(struct pep_unwind_memory *memory,
                                      struct pep_learner_frame *frame) {
    uintptr_t bp = frame->bp, saved, address;
    if (bp < frame->sp || bp - frame->sp > FRAME_BYTES_MAX || bp % 8 != 0)
        return false;
    if (!pep_unwind_load(memory, bp, &saved) || !pep_unwind_load(memory, bp + 8, &address))
        return false;
    if (!is_return_address(memory, address, frame->pc)) {
        if (saved == 0)
            frame->bp = 0; /* the first frame, as below */
        return false;
    }
    *frame = (struct pep_learner_frame){.pc = address, .sp = bp + 16, .bp = saved};
    return true;
}

/* True when the call before address goes to the function that pc is in the first bytes of. */
PEP_SIGNAL_SAFE static bool is_call_of(struct pep_unwind_memory *memory, uintptr_t address,
                                       uintptr_t pc) {
    struct __attribute__((packed)) {
        uint8_t opcode;
        int32_t offset;
    } call;
    return pep_unwind_read(memory, address - sizeof(call), &call, sizeof(call)) &&
           call.opcode == 0xe8 &&
           pc - (address + (uintptr_t)(intptr_t)call.offset) < LEAF_BYTES_MAX;
}

/* At a function's first instruction, or in one that needs no frame, the return address lies at
 * SP; after "push" one word above. */
PEP_SIGNAL_SAFE static bool follow_sp(struct pep_unwind_memory *memory, bool is_certain,
                                      struct pep_learner_frame *frame) {
    uintptr_t address;
    for (uintptr_t at = frame->sp; at <= frame->sp + 8; at += 8) {
        if (!pep_unwind_load(memory, at, &address) ||
            !is_return_address(memory, address, frame->pc) ||
            (is_certain && !is_call_of(memory, address, frame->pc)))
            continue;
        /* BP already set up just below it: the caller's was pushed there. */
        if (frame->bp == at - 8 && !pep_unwind_load(memory, at - 8, &frame->bp))
            return false;
        frame->pc = address;
        frame->sp = at + 8;
        return true;
    }
    return false;
}

/* Go's asmcgocall runs C on another stack, at whose end it keeps the goroutine and how deep it was
 * in its own: SP of before, where the return address lies. BP is what C was given and gave back,
 * and points into that stack: so it is no guess. */
PEP_SIGNAL_SAFE static bool follow_goroutine(struct pep_unwind_memory *memory,
                                             struct pep_learner_frame *frame) {
    static const uintptr_t kept_at[] = {40, 0}; /* until Go 1.20, and since */
    for (int i = 0; i < 2; i++) {
        uintptr_t depth, goroutine, hi, address, at = frame->sp + kept_at[i];
        if (!pep_unwind_load(memory, at, &depth) || !pep_unwind_load(memory, at + 8, &goroutine) ||
            depth % 8 != 0 || goroutine % 8 != 0 || frame->bp % 8 != 0 ||
            !pep_unwind_load(memory, goroutine + 8, &hi) || /* the end of its stack */
            frame->bp >= hi || hi - frame->bp >= depth ||
            !pep_unwind_load(memory, hi - depth, &address) ||
            !is_return_address(memory, address, frame->pc))
            continue;
        frame->pc = address;
        frame->sp = hi - depth + 8;
        return true;
    }
    return false;
}

/* What an earlier call left at SP must not become a caller: without a call of just this function
 * as its witness, a good BP goes first, though a leaf without a frame then loses its caller. */
PEP_SIGNAL_SAFE bool pep_guess_caller(struct pep_unwind_memory *memory, bool is_leaf,
                                      struct pep_learner_frame *frame) {
    return (is_leaf && follow_sp(memory, true, frame)) || follow_bp(memory, frame) ||
           (!is_leaf && follow_goroutine(memory, frame)) ||
           (is_leaf && follow_sp(memory, false, frame));
}

PEP_SIGNAL_SAFE bool pep_guess_is_sigreturn(struct pep_unwind_memory *memory, uintptr_t pc) {
    static const uint8_t form[2][9] = {
        {0x48, 0xc7, 0xc0, 0x0f, 0, 0, 0, 0x0f, 0x05}, /* mov $15,%rax; syscall */
        {0xb8, 0x0f, 0, 0, 0, 0x0f, 0x05}};            /* mov $15,%eax; syscall */
    static const size_t sizes[2] = {9, 7};
    uint8_t code[9];
    for (int i = 0; i < 2; i++) {
        if (!pep_unwind_read(memory, pc, code, sizes[i]))
            return false;
        size_t same = 0;
        while (same < sizes[i] && code[same] == form[i][same])
            same++;
        if (same == sizes[i])
            return true;
    }
    return false;
}
