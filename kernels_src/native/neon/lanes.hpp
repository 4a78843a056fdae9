// The vocabulary for AArch64 without dot products of bytes (Cortex-A72: Raspberry Pi 4).
#ifndef LANES_HPP
#define LANES_HPP
#include "../neon.hpp"

PYTHONIC_NS_BEGIN
namespace lanes {

INLINE int32x4_t dot(int32x4_t s, int8x16_t w, int8x16_t x) {
  auto low = vmull_s8(vget_low_s8(w), vget_low_s8(x));
  return vpadalq_s16(s, vpaddq_s16(low, vmull_high_s8(w, x)));
}

}
PYTHONIC_NS_END
#endif
