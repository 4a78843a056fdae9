// The vocabulary for AVX-512 with VNNI (x86-64-v4 and vpdpbusd: Cascade Lake, Ice Lake, Zen 4 and after).
#ifndef LANES_HPP
#define LANES_HPP
#include "../x86_512.hpp"

PYTHONIC_NS_BEGIN
namespace lanes {

using acc = i32;

INLINE acc zero_acc() { return {_mm512_setzero_si512()}; }
template <class A> INLINE acc dot4(acc s, u8 w, A const &x, int64_t j) {
  return {_mm512_dpbusd_epi32(s.v, w.v, _mm512_set1_epi32(four(x, j)))};
}
INLINE i32 widen(acc s) { return s; }
// vpdpbusd wants unsigned weights: w + 128, less 128 times the sum of x
INLINE i32 zero_i8(int64_t total) { return splat_i32((int)(-128 * total)); }
template <class A> INLINE i32 dot4_i8(i32 s, u8 w, A const &x, int64_t j) {
  return dot4(s, {_mm512_xor_si512(w.v, _mm512_set1_epi8((char)0x80))}, x, j);
}

}
PYTHONIC_NS_END
#endif
