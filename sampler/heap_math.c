#include "sampler/heap_math.h"

#define LN2 0.693147180559945309417
#define SQRT2 1.41421356237309504880

union bits {
    double number;
    uint64_t word;
};

/* x = m * 2^e with m around 1, and log m = 2 artanh f with f = (m-1)/(m+1), |f| < 0.172. */
PEP_HOOK_SAFE double pep_heap_log(double x) {
    union bits m = {.number = x};
    int exponent = (int)(m.word >> 52) - 1023;
    m.word = (m.word & 0xfffffffffffffu) | (uint64_t)1023 << 52;
    if (m.number > SQRT2) {
        m.number *= 0.5;
        exponent++;
    }
    double f = (m.number - 1) / (m.number + 1), s = f * f;
    double series = 1 + s * (1.0 / 3 + s * (1.0 / 5 + s * (1.0 / 7 + s * (1.0 / 9 + s / 11))));
    return exponent * LN2 + 2 * f * series;
}

/* exp(-x) = 2^-k * exp(-r) with |r| <= ln2 / 2. */
PEP_HOOK_SAFE static double exp_minus(double x) {
    int k = (int)(x / LN2 + 0.5);
    double r = -(x - k * LN2);
    double series =
        1 + r * (1 + r / 2 * (1 + r / 3 * (1 + r / 4 * (1 + r / 5 * (1 + r / 6 * (1 + r / 7))))));
    union bits scale = {.word = (uint64_t)(1023 - k) << 52};
    return series * scale.number;
}

PEP_HOOK_SAFE double pep_heap_likelihood(double x) {
    if (x > 40)
        return 1;
    if (x < 0.1) /* the difference would lose digits */
        return x * (1 - x / 2 * (1 - x / 3 * (1 - x / 4 * (1 - x / 5 * (1 - x / 6)))));
    return 1 - exp_minus(x);
}

/* xorshift64*: Marsaglia, "Xorshift RNGs" (2003), with Vigna's multiplier (2016). */
PEP_HOOK_SAFE double pep_heap_uniform(uint64_t *state) {
    uint64_t x = *state;
    x ^= x >> 12;
    x ^= x << 25;
    x ^= x >> 27;
    *state = x;
    return (double)((x * 0x2545f4914f6cdd1du >> 11) + 1) * 0x1p-53;
}
