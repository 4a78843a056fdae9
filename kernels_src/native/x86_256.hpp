// AVX2 + FMA + F16C (x86-64-v3): all of the vocabulary but the 8-bit products. A value is two 256-bit registers.
#ifndef X86_256_HPP
#define X86_256_HPP
#include <immintrin.h>
#include "memory.hpp"

PYTHONIC_NS_BEGIN
namespace lanes {

struct i32 { __m256i a, b; };
struct f32 { __m256 a, b; };
struct u8 { __m256i a, b; };

INLINE bool wide() { return false; }

// memory
template <class A> INLINE u8 load_u8(A const &a, int64_t i) {
  auto p = (__m256i const *)at(a, i);
  return {_mm256_loadu_si256(p), _mm256_loadu_si256(p + 1)};
}
template <class A> INLINE f32 load_f32(A const &a, int64_t i) {
  auto p = (float const *)at(a, i);
  return {_mm256_loadu_ps(p), _mm256_loadu_ps(p + 8)};
}
template <class A> INLINE f32 load_f16(A const &a, int64_t i) {
  auto p = (__m128i const *)at(a, i);
  return {_mm256_cvtph_ps(_mm_loadu_si128(p)), _mm256_cvtph_ps(_mm_loadu_si128(p + 1))};
}
INLINE __m256 widen_bf16(__m128i v) { return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(v), 16)); }
template <class A> INLINE f32 load_bf16(A const &a, int64_t i) {
  auto p = (__m128i const *)at(a, i);
  return {widen_bf16(_mm_loadu_si128(p)), widen_bf16(_mm_loadu_si128(p + 1))};
}
template <class A> INLINE i32 widen_u8(A const &a, int64_t i) {
  auto v = _mm_loadu_si128((__m128i const *)at(a, i));
  return {_mm256_cvtepu8_epi32(v), _mm256_cvtepu8_epi32(_mm_srli_si128(v, 8))};
}
template <class A> INLINE i32 widen_i8(A const &a, int64_t i) {
  auto v = _mm_loadu_si128((__m128i const *)at(a, i));
  return {_mm256_cvtepi8_epi32(v), _mm256_cvtepi8_epi32(_mm_srli_si128(v, 8))};
}
template <class A> INLINE none_type store_f32(A const &a, int64_t i, f32 v) {
  auto p = (float *)to(a, i);
  _mm256_storeu_ps(p, v.a);
  _mm256_storeu_ps(p + 8, v.b);
  return {};
}
template <class A> INLINE none_type store_f16(A const &a, int64_t i, f32 v) {
  auto p = (__m128i *)to(a, i);
  _mm_storeu_si128(p, _mm256_cvtps_ph(v.a, 0));
  _mm_storeu_si128(p + 1, _mm256_cvtps_ph(v.b, 0));
  return {};
}
template <class A> INLINE none_type store_i8(A const &a, int64_t i, i32 v) {
  auto words = _mm256_permute4x64_epi64(_mm256_packs_epi32(v.a, v.b), 0xd8);
  _mm_storeu_si128((__m128i *)to(a, i),
                   _mm_packs_epi16(_mm256_castsi256_si128(words), _mm256_extracti128_si256(words, 1)));
  return {};
}
template <class A> INLINE none_type put_f16(A const &a, int64_t i, float x) {
  *(uint16_t *)to(a, i) = _cvtss_sh(x, 0);
  return {};
}

// bytes
INLINE u8 bits(u8 w, int n, int mask) {
  auto m = _mm256_set1_epi8((char)mask);
  return {_mm256_and_si256(_mm256_srli_epi16(w.a, n), m), _mm256_and_si256(_mm256_srli_epi16(w.b, n), m)};
}
INLINE u8 join(u8 low, u8 high, int n) {
  return {_mm256_or_si256(low.a, _mm256_slli_epi16(high.a, n)), _mm256_or_si256(low.b, _mm256_slli_epi16(high.b, n))};
}
INLINE u8 iq4(u8 w) {
  auto values = _mm256_broadcastsi128_si256(_mm_load_si128((__m128i const *)IQ4_VALUES));
  return {_mm256_shuffle_epi8(values, w.a), _mm256_shuffle_epi8(values, w.b)};
}

// arithmetic
INLINE i32 splat_i32(int x) { auto v = _mm256_set1_epi32(x); return {v, v}; }
INLINE f32 splat_f32(float x) { auto v = _mm256_set1_ps(x); return {v, v}; }
INLINE i32 add_i32(i32 a, i32 b) { return {_mm256_add_epi32(a.a, b.a), _mm256_add_epi32(a.b, b.b)}; }
INLINE i32 and_i32(i32 v, int mask) {
  auto m = _mm256_set1_epi32(mask);
  return {_mm256_and_si256(v.a, m), _mm256_and_si256(v.b, m)};
}
INLINE i32 shift_i32(i32 v, int n) { return {_mm256_srai_epi32(v.a, n), _mm256_srai_epi32(v.b, n)}; }
INLINE f32 to_f32(i32 v) { return {_mm256_cvtepi32_ps(v.a), _mm256_cvtepi32_ps(v.b)}; }
INLINE i32 round_i32(f32 v) { return {_mm256_cvtps_epi32(v.a), _mm256_cvtps_epi32(v.b)}; }
INLINE f32 add(f32 a, f32 b) { return {_mm256_add_ps(a.a, b.a), _mm256_add_ps(a.b, b.b)}; }
INLINE f32 sub(f32 a, f32 b) { return {_mm256_sub_ps(a.a, b.a), _mm256_sub_ps(a.b, b.b)}; }
INLINE f32 mul(f32 a, f32 b) { return {_mm256_mul_ps(a.a, b.a), _mm256_mul_ps(a.b, b.b)}; }
INLINE f32 div(f32 a, f32 b) { return {_mm256_div_ps(a.a, b.a), _mm256_div_ps(a.b, b.b)}; }
INLINE f32 sqrt(f32 v) { return {_mm256_sqrt_ps(v.a), _mm256_sqrt_ps(v.b)}; }
INLINE f32 fma(f32 a, f32 b, f32 c) { return {_mm256_fmadd_ps(a.a, b.a, c.a), _mm256_fmadd_ps(a.b, b.b, c.b)}; }
INLINE f32 largest(f32 a, f32 b) { return {_mm256_max_ps(a.a, b.a), _mm256_max_ps(a.b, b.b)}; }
INLINE f32 magnitude(f32 v) {
  auto m = _mm256_castsi256_ps(_mm256_set1_epi32(0x7fffffff));
  return {_mm256_and_ps(v.a, m), _mm256_and_ps(v.b, m)};
}
INLINE f32 select_greater(f32 a, f32 b, f32 x, f32 y) {
  return {_mm256_blendv_ps(y.a, x.a, _mm256_cmp_ps(a.a, b.a, _CMP_GT_OQ)),
          _mm256_blendv_ps(y.b, x.b, _mm256_cmp_ps(a.b, b.b, _CMP_GT_OQ))};
}
INLINE f32 first(f32 v, int64_t n, f32 other) {
  auto count = _mm256_set1_epi32((int)n);
  auto in_a = _mm256_cmpgt_epi32(count, _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
  auto in_b = _mm256_cmpgt_epi32(count, _mm256_setr_epi32(8, 9, 10, 11, 12, 13, 14, 15));
  return {_mm256_blendv_ps(other.a, v.a, _mm256_castsi256_ps(in_a)),
          _mm256_blendv_ps(other.b, v.b, _mm256_castsi256_ps(in_b))};
}
INLINE __m256 pow2(__m256i n) {
  return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_add_epi32(n, _mm256_set1_epi32(127)), 23));
}
INLINE f32 pow2(i32 n) { return {pow2(n.a), pow2(n.b)}; }

// across lanes
INLINE float sum_f32(f32 v) {
  auto w = _mm256_add_ps(v.a, v.b);
  auto x = _mm_add_ps(_mm256_castps256_ps128(w), _mm256_extractf128_ps(w, 1));
  x = _mm_add_ps(x, _mm_movehl_ps(x, x));
  return _mm_cvtss_f32(_mm_add_ss(x, _mm_movehdup_ps(x)));
}
INLINE float max_f32(f32 v) {
  auto w = _mm256_max_ps(v.a, v.b);
  auto x = _mm_max_ps(_mm256_castps256_ps128(w), _mm256_extractf128_ps(w, 1));
  x = _mm_max_ps(x, _mm_movehl_ps(x, x));
  return _mm_cvtss_f32(_mm_max_ss(x, _mm_movehdup_ps(x)));
}
INLINE float scalar(f32 v) { return _mm256_cvtss_f32(v.a); }
INLINE int sum_i32(i32 v) {
  auto w = _mm256_add_epi32(v.a, v.b);
  auto x = _mm_add_epi32(_mm256_castsi256_si128(w), _mm256_extracti128_si256(w, 1));
  x = _mm_add_epi32(x, _mm_shuffle_epi32(x, 0x4e));
  return _mm_cvtsi128_si32(_mm_add_epi32(x, _mm_shuffle_epi32(x, 0xb1)));
}

}
PYTHONIC_NS_END
#endif
