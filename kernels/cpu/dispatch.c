/* Which table of kernels this machine can run. */
#include <string.h>

#include "rows.h"

const gcpp_rows *gcpp_rows_for(const char *isa)
{
    if (strcmp(isa, "scalar") == 0)
        return &gcpp_rows_scalar;
#if defined(__x86_64__)
    __builtin_cpu_init();
    if (strcmp(isa, "avx2") == 0 && __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")
        && __builtin_cpu_supports("f16c"))
        return &gcpp_rows_avx2;
#elif defined(__aarch64__) /* every such core has it */
    if (strcmp(isa, "neon") == 0)
        return &gcpp_rows_neon;
#endif
    return NULL;
}
