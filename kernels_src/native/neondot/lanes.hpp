// The vocabulary for AArch64 with dot products of bytes (Arm v8.2 dotprod: Apple, Neoverse, Cortex-A76 and after).
#ifndef LANES_HPP
#define LANES_HPP
#include "../neon.hpp"

PYTHONIC_NS_BEGIN
namespace lanes {

INLINE int32x4_t dot(int32x4_t s, int8x16_t w, int8x16_t x) { return vdotq_s32(s, w, x); }

}
PYTHONIC_NS_END
#endif
