// The vocabulary for AVX-512 without VNNI (x86-64-v4: Skylake-X): a 512-bit register, products in 16 bits.
#ifndef LANES_HPP
#define LANES_HPP
#include "../x86_512.hpp"

PYTHONIC_NS_BEGIN
namespace lanes {

struct acc { __m512i v; };  // pairs of 16-bit sums

INLINE acc zero_acc() { return {_mm512_setzero_si512()}; }
template <class A> INLINE acc dot4(acc s, u8 w, A const &x, int64_t j) {
  return {_mm512_add_epi16(s.v, _mm512_maddubs_epi16(w.v, _mm512_set1_epi32(four(x, j))))};
}
INLINE i32 widen(acc s) { return {_mm512_madd_epi16(s.v, _mm512_set1_epi16(1))}; }
INLINE i32 zero_i8(int64_t) { return {_mm512_setzero_si512()}; }
template <class A> INLINE i32 dot4_i8(i32 s, u8 w, A const &x, int64_t j) {  // |w| * (x with the sign of w)
  auto v = _mm512_set1_epi32(four(x, j));
  v = _mm512_mask_sub_epi8(v, _mm512_movepi8_mask(w.v), _mm512_setzero_si512(), v);
  auto words = _mm512_maddubs_epi16(_mm512_abs_epi8(w.v), v);
  return {_mm512_add_epi32(s.v, _mm512_madd_epi16(words, _mm512_set1_epi16(1)))};
}

}
PYTHONIC_NS_END
#endif
