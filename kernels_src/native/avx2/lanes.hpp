// The vocabulary for AVX2 + FMA + F16C (x86-64-v3): two 256-bit registers, products in 16 bits.
#ifndef LANES_HPP
#define LANES_HPP
#include "../x86_256.hpp"

PYTHONIC_NS_BEGIN
namespace lanes {

struct acc { __m256i a, b; };  // pairs of 16-bit sums

INLINE acc zero_acc() { return {_mm256_setzero_si256(), _mm256_setzero_si256()}; }
template <class A> INLINE acc dot4(acc s, u8 w, A const &x, int64_t j) {
  auto v = _mm256_set1_epi32(four(x, j));
  return {_mm256_add_epi16(s.a, _mm256_maddubs_epi16(w.a, v)), _mm256_add_epi16(s.b, _mm256_maddubs_epi16(w.b, v))};
}
INLINE i32 widen(acc s) {
  auto ones = _mm256_set1_epi16(1);
  return {_mm256_madd_epi16(s.a, ones), _mm256_madd_epi16(s.b, ones)};
}
INLINE i32 zero_i8(int64_t) { return {_mm256_setzero_si256(), _mm256_setzero_si256()}; }
INLINE __m256i dot_i8(__m256i s, __m256i w, __m256i v) {  // |w| * (v with the sign of w)
  auto words = _mm256_maddubs_epi16(_mm256_abs_epi8(w), _mm256_sign_epi8(v, w));
  return _mm256_add_epi32(s, _mm256_madd_epi16(words, _mm256_set1_epi16(1)));
}
template <class A> INLINE i32 dot4_i8(i32 s, u8 w, A const &x, int64_t j) {
  auto v = _mm256_set1_epi32(four(x, j));
  return {dot_i8(s.a, w.a, v), dot_i8(s.b, w.b, v)};
}

}
PYTHONIC_NS_END
#endif
