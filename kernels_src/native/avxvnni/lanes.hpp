// The vocabulary for AVX-VNNI (x86-64-v3 and vpdpbusd on 256 bits: Alder Lake and after, Zen 5).
#ifndef LANES_HPP
#define LANES_HPP
#include "../x86_256.hpp"

PYTHONIC_NS_BEGIN
namespace lanes {

using acc = i32;

INLINE acc zero_acc() { return {_mm256_setzero_si256(), _mm256_setzero_si256()}; }
template <class A> INLINE acc dot4(acc s, u8 w, A const &x, int64_t j) {
  auto v = _mm256_set1_epi32(four(x, j));
  return {_mm256_dpbusd_avx_epi32(s.a, w.a, v), _mm256_dpbusd_avx_epi32(s.b, w.b, v)};
}
INLINE i32 widen(acc s) { return s; }
// vpdpbusd wants unsigned weights: w + 128, less 128 times the sum of x
INLINE i32 zero_i8(int64_t total) { return splat_i32((int)(-128 * total)); }
template <class A> INLINE i32 dot4_i8(i32 s, u8 w, A const &x, int64_t j) {
  auto top = _mm256_set1_epi8((char)0x80);
  return dot4(s, {_mm256_xor_si256(w.a, top), _mm256_xor_si256(w.b, top)}, x, j);
}

}
PYTHONIC_NS_END
#endif
