// Integers in four 128-bit registers, for processors without AVX2: SSE4.1 and all that came before it.
#ifndef X86_128_HPP
#define X86_128_HPP
#include <immintrin.h>
#include "memory.hpp"

PYTHONIC_NS_BEGIN
namespace lanes {

struct i32 { __m128i a, b, c, d; };
struct u8 { __m128i a, b, c, d; };
struct acc { __m128i a, b, c, d; };  // pairs of 16-bit sums
struct quad { __m128 a, b, c, d; };  // sixteen floats

INLINE bool wide() { return false; }

template <class T, class F, class... V> INLINE T each(F f, V... v) {
  return {f(v.a...), f(v.b...), f(v.c...), f(v.d...)};
}

// half precision, four numbers at a time
INLINE __m128 widen_f16(__m128i h) {
  auto rest = _mm_and_si128(h, _mm_set1_epi32(0x7fff)), sign = _mm_slli_epi32(_mm_xor_si128(h, rest), 16);
  auto scaled = _mm_mul_ps(_mm_castsi128_ps(_mm_slli_epi32(rest, 13)), _mm_set1_ps(0x1p112f));
  auto huge = _mm_and_si128(_mm_cmpgt_epi32(rest, _mm_set1_epi32(0x7bff)), _mm_set1_epi32(0x7f800000));
  return _mm_or_ps(scaled, _mm_castsi128_ps(_mm_or_si128(sign, huge)));
}
INLINE __m128i narrow_f16(__m128 x) {
  auto rest = _mm_and_si128(_mm_castps_si128(x), _mm_set1_epi32(0x7fffffff));
  auto sign = _mm_srli_epi32(_mm_xor_si128(_mm_castps_si128(x), rest), 16);
  auto odd = _mm_and_si128(_mm_srli_epi32(rest, 13), _mm_set1_epi32(1));
  auto r = _mm_srli_epi32(_mm_add_epi32(_mm_add_epi32(rest, odd), _mm_set1_epi32(0xfff - ((127 - 15) << 23))), 13);
  // subnormal: adding 0.5 leaves the multiple of 2^-24, rounded to even, in the low bits
  auto small = _mm_castps_si128(_mm_add_ps(_mm_castsi128_ps(rest), _mm_set1_ps(0.5f)));
  small = _mm_sub_epi32(small, _mm_set1_epi32(0x3f000000));
  r = _mm_blendv_epi8(r, small, _mm_cmpgt_epi32(_mm_set1_epi32(0x38800000), rest));
  r = _mm_blendv_epi8(r, _mm_set1_epi32(0x7c00), _mm_cmpgt_epi32(rest, _mm_set1_epi32(0x477fefff)));  // beyond 65504
  r = _mm_blendv_epi8(r, _mm_set1_epi32(0x7e00), _mm_cmpgt_epi32(rest, _mm_set1_epi32(0x7f800000)));  // not a number
  return _mm_or_si128(r, sign);
}

// memory
template <class A> INLINE u8 load_u8(A const &a, int64_t i) {
  auto p = (__m128i const *)at(a, i);
  return {_mm_loadu_si128(p), _mm_loadu_si128(p + 1), _mm_loadu_si128(p + 2), _mm_loadu_si128(p + 3)};
}
template <class A> INLINE quad load_halves(A const &a, int64_t i) {
  auto p = (__m128i const *)at(a, i);
  auto v = _mm_loadu_si128(p), w = _mm_loadu_si128(p + 1), zero = _mm_setzero_si128();
  return {widen_f16(_mm_unpacklo_epi16(v, zero)), widen_f16(_mm_unpackhi_epi16(v, zero)),
          widen_f16(_mm_unpacklo_epi16(w, zero)), widen_f16(_mm_unpackhi_epi16(w, zero))};
}
template <class A> INLINE quad load_upper_halves(A const &a, int64_t i) {  // bfloat16
  auto p = (__m128i const *)at(a, i);
  auto v = _mm_loadu_si128(p), w = _mm_loadu_si128(p + 1), zero = _mm_setzero_si128();
  return {_mm_castsi128_ps(_mm_unpacklo_epi16(zero, v)), _mm_castsi128_ps(_mm_unpackhi_epi16(zero, v)),
          _mm_castsi128_ps(_mm_unpacklo_epi16(zero, w)), _mm_castsi128_ps(_mm_unpackhi_epi16(zero, w))};
}
template <class A> INLINE none_type store_halves(A const &a, int64_t i, quad v) {
  auto p = (__m128i *)to(a, i);
  _mm_storeu_si128(p, _mm_packus_epi32(narrow_f16(v.a), narrow_f16(v.b)));
  _mm_storeu_si128(p + 1, _mm_packus_epi32(narrow_f16(v.c), narrow_f16(v.d)));
  return {};
}
template <class A> INLINE none_type put_f16(A const &a, int64_t i, float x) {
  *(uint16_t *)to(a, i) = (uint16_t)_mm_cvtsi128_si32(narrow_f16(_mm_set_ss(x)));
  return {};
}
template <class A> INLINE i32 widen_u8(A const &a, int64_t i) {
  auto v = _mm_loadu_si128((__m128i const *)at(a, i));
  return {_mm_cvtepu8_epi32(v), _mm_cvtepu8_epi32(_mm_srli_si128(v, 4)), _mm_cvtepu8_epi32(_mm_srli_si128(v, 8)),
          _mm_cvtepu8_epi32(_mm_srli_si128(v, 12))};
}
template <class A> INLINE i32 widen_i8(A const &a, int64_t i) {
  auto v = _mm_loadu_si128((__m128i const *)at(a, i));
  return {_mm_cvtepi8_epi32(v), _mm_cvtepi8_epi32(_mm_srli_si128(v, 4)), _mm_cvtepi8_epi32(_mm_srli_si128(v, 8)),
          _mm_cvtepi8_epi32(_mm_srli_si128(v, 12))};
}
template <class A> INLINE none_type store_i8(A const &a, int64_t i, i32 v) {
  _mm_storeu_si128((__m128i *)to(a, i), _mm_packs_epi16(_mm_packs_epi32(v.a, v.b), _mm_packs_epi32(v.c, v.d)));
  return {};
}

// 8-bit products
INLINE u8 bits(u8 w, int n, int mask) {
  return each<u8>([=](auto w) INLINED { return _mm_and_si128(_mm_srli_epi16(w, n), _mm_set1_epi8((char)mask)); }, w);
}
INLINE u8 join(u8 low, u8 high, int n) {
  return each<u8>([=](auto low, auto high) INLINED { return _mm_or_si128(low, _mm_slli_epi16(high, n)); }, low, high);
}
INLINE u8 iq4(u8 w) {
  auto values = _mm_load_si128((__m128i const *)IQ4_VALUES);
  return each<u8>([=](auto w) INLINED { return _mm_shuffle_epi8(values, w); }, w);
}
INLINE acc zero_acc() {
  auto z = _mm_setzero_si128();
  return {z, z, z, z};
}
template <class A> INLINE acc dot4(acc s, u8 w, A const &x, int64_t j) {
  auto v = _mm_set1_epi32(four(x, j));
  return each<acc>([=](auto s, auto w) INLINED { return _mm_add_epi16(s, _mm_maddubs_epi16(w, v)); }, s, w);
}
INLINE i32 widen(acc s) {
  return each<i32>([](auto s) INLINED { return _mm_madd_epi16(s, _mm_set1_epi16(1)); }, s);
}
INLINE i32 zero_i8(int64_t) {
  auto z = _mm_setzero_si128();
  return {z, z, z, z};
}
template <class A> INLINE i32 dot4_i8(i32 s, u8 w, A const &x, int64_t j) {  // |w| * (x with the sign of w)
  auto v = _mm_set1_epi32(four(x, j));
  return each<i32>([=](auto s, auto w) INLINED {
    auto words = _mm_maddubs_epi16(_mm_abs_epi8(w), _mm_sign_epi8(v, w));
    return _mm_add_epi32(s, _mm_madd_epi16(words, _mm_set1_epi16(1)));
  }, s, w);
}

// arithmetic
INLINE i32 splat_i32(int x) {
  auto v = _mm_set1_epi32(x);
  return {v, v, v, v};
}
INLINE i32 add_i32(i32 a, i32 b) {
  return each<i32>([](auto a, auto b) INLINED { return _mm_add_epi32(a, b); }, a, b);
}
INLINE i32 and_i32(i32 v, int mask) {
  return each<i32>([=](auto v) INLINED { return _mm_and_si128(v, _mm_set1_epi32(mask)); }, v);
}
INLINE i32 shift_i32(i32 v, int n) {
  return each<i32>([=](auto v) INLINED { return _mm_srai_epi32(v, n); }, v);
}
INLINE quad pow2_quad(i32 n) {
  return each<quad>([](auto n) INLINED {
    return _mm_castsi128_ps(_mm_slli_epi32(_mm_add_epi32(n, _mm_set1_epi32(127)), 23));
  }, n);
}

// across lanes
INLINE float sum_four(__m128 v) {
  v = _mm_add_ps(v, _mm_movehl_ps(v, v));
  return _mm_cvtss_f32(_mm_add_ss(v, _mm_movehdup_ps(v)));
}
INLINE float max_four(__m128 v) {
  v = _mm_max_ps(v, _mm_movehl_ps(v, v));
  return _mm_cvtss_f32(_mm_max_ss(v, _mm_movehdup_ps(v)));
}
INLINE int sum_i32(i32 v) {
  auto s = _mm_add_epi32(_mm_add_epi32(v.a, v.b), _mm_add_epi32(v.c, v.d));
  s = _mm_add_epi32(s, _mm_shuffle_epi32(s, 0x4e));
  return _mm_cvtsi128_si32(_mm_add_epi32(s, _mm_shuffle_epi32(s, 0xb1)));
}

}
PYTHONIC_NS_END
#endif
