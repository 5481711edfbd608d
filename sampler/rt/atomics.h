/*
 * Atomics with their memory order in the name. Operands are plain or _Atomic-free integers
 * and pointers; every access to a shared word goes through these names.
 */
#ifndef PEP_SAMPLER_RT_ATOMICS_H
#define PEP_SAMPLER_RT_ATOMICS_H

#define pep_load_relaxed(p) __atomic_load_n((p), __ATOMIC_RELAXED)
#define pep_load_acquire(p) __atomic_load_n((p), __ATOMIC_ACQUIRE)
#define pep_store_relaxed(p, v) __atomic_store_n((p), (v), __ATOMIC_RELAXED)
#define pep_store_release(p, v) __atomic_store_n((p), (v), __ATOMIC_RELEASE)
#define pep_add_relaxed(p, v) __atomic_fetch_add((p), (v), __ATOMIC_RELAXED)
#define pep_add_acq_rel(p, v) __atomic_fetch_add((p), (v), __ATOMIC_ACQ_REL)
#define pep_sub_relaxed(p, v) __atomic_fetch_sub((p), (v), __ATOMIC_RELAXED)
#define pep_sub_acq_rel(p, v) __atomic_fetch_sub((p), (v), __ATOMIC_ACQ_REL)
#define pep_or_relaxed(p, v) __atomic_fetch_or((p), (v), __ATOMIC_RELAXED)
#define pep_or_release(p, v) __atomic_fetch_or((p), (v), __ATOMIC_RELEASE)
#define pep_or_acq_rel(p, v) __atomic_fetch_or((p), (v), __ATOMIC_ACQ_REL)
#define pep_and_relaxed(p, v) __atomic_fetch_and((p), (v), __ATOMIC_RELAXED)
#define pep_and_acq_rel(p, v) __atomic_fetch_and((p), (v), __ATOMIC_ACQ_REL)
#define pep_xor_acq_rel(p, v) __atomic_fetch_xor((p), (v), __ATOMIC_ACQ_REL)
#define pep_swap_acq_rel(p, v) __atomic_exchange_n((p), (v), __ATOMIC_ACQ_REL)
/* True when *p was *expected and is now v; otherwise *expected holds what was found. */
#define pep_cas_acq_rel(p, expected, v) \
    __atomic_compare_exchange_n((p), (expected), (v), 0, __ATOMIC_ACQ_REL, __ATOMIC_ACQUIRE)
#define pep_cas_relaxed(p, expected, v) \
    __atomic_compare_exchange_n((p), (expected), (v), 0, __ATOMIC_RELAXED, __ATOMIC_RELAXED)
#define pep_fence_acquire() __atomic_thread_fence(__ATOMIC_ACQUIRE)
#define pep_fence_seq_cst() __atomic_thread_fence(__ATOMIC_SEQ_CST)
#define pep_signal_fence() __atomic_signal_fence(__ATOMIC_SEQ_CST)

#endif
