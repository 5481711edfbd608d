/* The logarithm, the likelihood and the distances of a Poisson process, against libm. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "sampler/heap_math.h"

static void the_logarithm_is_right(void **state) {
    (void)state;
    double worst = 0;
    for (double x = 1; x > 1e-16; x *= 0.99999) {
        double error = fabs(pep_heap_log(x) - log(x));
        worst = fmax(worst, x > 0.9 ? error : error / fabs(log(x)));
    }
    print_message("worst error of the logarithm: %.3g\n", worst);
    assert_true(worst < 1e-9);
}

static void the_likelihood_is_right(void **state) {
    (void)state;
    double worst = 0;
    for (double x = 1e-9; x < 1000; x *= 1.0001)
        worst = fmax(worst, fabs(pep_heap_likelihood(x) / -expm1(-x) - 1));
    print_message("worst relative error of the likelihood: %.3g\n", worst);
    assert_true(worst < 1e-7);
    assert_true(pep_heap_likelihood(0) == 0);
    assert_true(pep_heap_likelihood(1e300) == 1);
}

static void the_distances_are_exponential(void **state) {
    (void)state;
    enum { DRAWS = 1000000 };
    uint64_t seed = 88172645463325252u;
    double sum = 0, squares = 0;
    for (int i = 0; i < DRAWS; i++) {
        double d = -pep_heap_log(pep_heap_uniform(&seed));
        sum += d;
        squares += d * d;
    }
    double mean_off = sum / DRAWS - 1, square_off = squares / DRAWS - 2;
    print_message("mean 1%+.5f (4 sigma: %.5f), mean square 2%+.5f (4 sigma: %.5f)\n", mean_off,
                  4 / sqrt(DRAWS), square_off, 4 * sqrt(20.0 / DRAWS));
    assert_true(fabs(mean_off) < 4 / sqrt(DRAWS));
    assert_true(fabs(square_off) < 4 * sqrt(20.0 / DRAWS)); /* var d^2 = 24 - 4 */
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_logarithm_is_right),
        cmocka_unit_test(the_likelihood_is_right),
        cmocka_unit_test(the_distances_are_exponential),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
