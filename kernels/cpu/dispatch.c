/* Which table of kernels this machine can run. */
#include <string.h>

#include "rows.h"

#if defined(__x86_64__)
static int has_avx2(void)
{
    return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("f16c");
}

static int has_avx512(void)
{
    return has_avx2() && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw")
           && __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
}
#endif

const gcpp_rows *gcpp_rows_for(const char *isa)
{
    if (strcmp(isa, "scalar") == 0)
        return &gcpp_rows_scalar;
#if defined(__x86_64__)
    __builtin_cpu_init();
    if (strcmp(isa, "avx2") == 0 && has_avx2())
        return &gcpp_rows_avx2;
    if (strcmp(isa, "avx512") == 0 && has_avx512())
        return &gcpp_rows_avx512;
    if (strcmp(isa, "avx512vbmi") == 0 && has_avx512() && __builtin_cpu_supports("avx512vbmi"))
        return &gcpp_rows_avx512vbmi;
#elif defined(__aarch64__) /* every such core has it */
    if (strcmp(isa, "neon") == 0)
        return &gcpp_rows_neon;
#endif
    return NULL;
}
