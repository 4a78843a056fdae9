// AVX-512 as every processor since Skylake-SP has it (x86-64-v4): all of the vocabulary but the 8-bit products.
// A value is one register.
#ifndef X86_512_HPP
#define X86_512_HPP
#include <immintrin.h>
#include "memory.hpp"

PYTHONIC_NS_BEGIN
namespace lanes {

struct i32 { __m512i v; };
struct f32 { __m512 v; };
struct u8 { __m512i v; };

INLINE bool wide() { return true; }

// memory
template <class A> INLINE u8 load_u8(A const &a, int64_t i) { return {_mm512_loadu_si512(at(a, i))}; }
template <class A> INLINE f32 load_f32(A const &a, int64_t i) { return {_mm512_loadu_ps(at(a, i))}; }
template <class A> INLINE f32 load_f16(A const &a, int64_t i) {
  return {_mm512_cvtph_ps(_mm256_loadu_si256((__m256i const *)at(a, i)))};
}
template <class A> INLINE f32 load_bf16(A const &a, int64_t i) {
  auto v = _mm512_cvtepu16_epi32(_mm256_loadu_si256((__m256i const *)at(a, i)));
  return {_mm512_castsi512_ps(_mm512_slli_epi32(v, 16))};
}
template <class A> INLINE i32 widen_u8(A const &a, int64_t i) {
  return {_mm512_cvtepu8_epi32(_mm_loadu_si128((__m128i const *)at(a, i)))};
}
template <class A> INLINE i32 widen_i8(A const &a, int64_t i) {
  return {_mm512_cvtepi8_epi32(_mm_loadu_si128((__m128i const *)at(a, i)))};
}
template <class A> INLINE none_type store_f32(A const &a, int64_t i, f32 v) {
  _mm512_storeu_ps(to(a, i), v.v);
  return {};
}
template <class A> INLINE none_type store_f16(A const &a, int64_t i, f32 v) {
  _mm256_storeu_si256((__m256i *)to(a, i), _mm512_cvtps_ph(v.v, 0));
  return {};
}
template <class A> INLINE none_type store_i8(A const &a, int64_t i, i32 v) {
  _mm_storeu_si128((__m128i *)to(a, i), _mm512_cvtepi32_epi8(v.v));
  return {};
}
template <class A> INLINE none_type put_f16(A const &a, int64_t i, float x) {
  *(uint16_t *)to(a, i) = (uint16_t)_mm_extract_epi16(_mm_cvtps_ph(_mm_set_ss(x), 0), 0);
  return {};
}

// bytes
INLINE u8 bits(u8 w, int n, int mask) {
  return {_mm512_and_si512(_mm512_srli_epi16(w.v, (unsigned)n), _mm512_set1_epi8((char)mask))};
}
INLINE u8 join(u8 low, u8 high, int n) { return {_mm512_or_si512(low.v, _mm512_slli_epi16(high.v, (unsigned)n))}; }
INLINE u8 iq4(u8 w) {
  auto values = _mm512_broadcast_i32x4(_mm_load_si128((__m128i const *)IQ4_VALUES));
  return {_mm512_shuffle_epi8(values, w.v)};
}

// arithmetic
INLINE i32 splat_i32(int x) { return {_mm512_set1_epi32(x)}; }
INLINE f32 splat_f32(float x) { return {_mm512_set1_ps(x)}; }
INLINE i32 add_i32(i32 a, i32 b) { return {_mm512_add_epi32(a.v, b.v)}; }
INLINE i32 and_i32(i32 v, int mask) { return {_mm512_and_si512(v.v, _mm512_set1_epi32(mask))}; }
INLINE i32 shift_i32(i32 v, int n) { return {_mm512_srai_epi32(v.v, (unsigned)n)}; }
INLINE f32 to_f32(i32 v) { return {_mm512_cvtepi32_ps(v.v)}; }
INLINE i32 round_i32(f32 v) { return {_mm512_cvtps_epi32(v.v)}; }
INLINE f32 add(f32 a, f32 b) { return {_mm512_add_ps(a.v, b.v)}; }
INLINE f32 sub(f32 a, f32 b) { return {_mm512_sub_ps(a.v, b.v)}; }
INLINE f32 mul(f32 a, f32 b) { return {_mm512_mul_ps(a.v, b.v)}; }
INLINE f32 div(f32 a, f32 b) { return {_mm512_div_ps(a.v, b.v)}; }
INLINE f32 sqrt(f32 v) { return {_mm512_sqrt_ps(v.v)}; }
INLINE f32 fma(f32 a, f32 b, f32 c) { return {_mm512_fmadd_ps(a.v, b.v, c.v)}; }
INLINE f32 largest(f32 a, f32 b) { return {_mm512_max_ps(a.v, b.v)}; }
INLINE f32 magnitude(f32 v) {
  return {_mm512_castsi512_ps(_mm512_and_si512(_mm512_castps_si512(v.v), _mm512_set1_epi32(0x7fffffff)))};
}
INLINE f32 select_greater(f32 a, f32 b, f32 x, f32 y) {
  return {_mm512_mask_blend_ps(_mm512_cmp_ps_mask(a.v, b.v, _CMP_GT_OQ), y.v, x.v)};
}
INLINE f32 first(f32 v, int64_t n, f32 other) {
  auto in = n >= 16 ? 0xffff : n <= 0 ? 0 : (1 << n) - 1;
  return {_mm512_mask_blend_ps((__mmask16)in, other.v, v.v)};
}
INLINE f32 pow2(i32 n) {
  return {_mm512_castsi512_ps(_mm512_slli_epi32(_mm512_add_epi32(n.v, _mm512_set1_epi32(127)), 23))};
}

// across lanes
INLINE __m256 upper(__m512 v) { return _mm256_castpd_ps(_mm512_extractf64x4_pd(_mm512_castps_pd(v), 1)); }
INLINE float sum_f32(f32 v) {
  auto w = _mm256_add_ps(_mm512_castps512_ps256(v.v), upper(v.v));
  auto x = _mm_add_ps(_mm256_castps256_ps128(w), _mm256_extractf128_ps(w, 1));
  x = _mm_add_ps(x, _mm_movehl_ps(x, x));
  return _mm_cvtss_f32(_mm_add_ss(x, _mm_movehdup_ps(x)));
}
INLINE float max_f32(f32 v) {
  auto w = _mm256_max_ps(_mm512_castps512_ps256(v.v), upper(v.v));
  auto x = _mm_max_ps(_mm256_castps256_ps128(w), _mm256_extractf128_ps(w, 1));
  x = _mm_max_ps(x, _mm_movehl_ps(x, x));
  return _mm_cvtss_f32(_mm_max_ss(x, _mm_movehdup_ps(x)));
}
INLINE float scalar(f32 v) { return _mm512_cvtss_f32(v.v); }
INLINE int sum_i32(i32 v) {  // not _mm512_reduce_add_epi32, which g++ ends with an addition that may overflow
  auto w = _mm256_add_epi32(_mm512_castsi512_si256(v.v), _mm512_extracti64x4_epi64(v.v, 1));
  auto x = _mm_add_epi32(_mm256_castsi256_si128(w), _mm256_extracti128_si256(w, 1));
  x = _mm_add_epi32(x, _mm_shuffle_epi32(x, 0x4e));
  return _mm_cvtsi128_si32(_mm_add_epi32(x, _mm_shuffle_epi32(x, 0xb1)));
}

}
PYTHONIC_NS_END
#endif
