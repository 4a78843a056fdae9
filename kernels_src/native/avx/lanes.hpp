// The vocabulary for AVX without AVX2, FMA and F16C: floats in two 256-bit registers, integers in four of 128 bits.
#ifndef LANES_HPP
#define LANES_HPP
#include "../x86_128.hpp"

PYTHONIC_NS_BEGIN
namespace lanes {

struct f32 { __m256 a, b; };

INLINE f32 paired(quad v) { return {_mm256_set_m128(v.b, v.a), _mm256_set_m128(v.d, v.c)}; }
INLINE quad halved(f32 v) {
  return {_mm256_castps256_ps128(v.a), _mm256_extractf128_ps(v.a, 1),
          _mm256_castps256_ps128(v.b), _mm256_extractf128_ps(v.b, 1)};
}

// memory
template <class A> INLINE f32 load_f32(A const &a, int64_t i) {
  auto p = (float const *)at(a, i);
  return {_mm256_loadu_ps(p), _mm256_loadu_ps(p + 8)};
}
template <class A> INLINE f32 load_f16(A const &a, int64_t i) { return paired(load_halves(a, i)); }
template <class A> INLINE f32 load_bf16(A const &a, int64_t i) { return paired(load_upper_halves(a, i)); }
template <class A> INLINE none_type store_f32(A const &a, int64_t i, f32 v) {
  auto p = (float *)to(a, i);
  _mm256_storeu_ps(p, v.a);
  _mm256_storeu_ps(p + 8, v.b);
  return {};
}
template <class A> INLINE none_type store_f16(A const &a, int64_t i, f32 v) { return store_halves(a, i, halved(v)); }

// arithmetic
INLINE f32 splat_f32(float x) {
  auto v = _mm256_set1_ps(x);
  return {v, v};
}
INLINE f32 to_f32(i32 v) {
  return {_mm256_cvtepi32_ps(_mm256_set_m128i(v.b, v.a)), _mm256_cvtepi32_ps(_mm256_set_m128i(v.d, v.c))};
}
INLINE i32 round_i32(f32 v) {
  auto a = _mm256_cvtps_epi32(v.a), b = _mm256_cvtps_epi32(v.b);
  return {_mm256_castsi256_si128(a), _mm256_extractf128_si256(a, 1),
          _mm256_castsi256_si128(b), _mm256_extractf128_si256(b, 1)};
}
INLINE f32 add(f32 a, f32 b) { return {_mm256_add_ps(a.a, b.a), _mm256_add_ps(a.b, b.b)}; }
INLINE f32 sub(f32 a, f32 b) { return {_mm256_sub_ps(a.a, b.a), _mm256_sub_ps(a.b, b.b)}; }
INLINE f32 mul(f32 a, f32 b) { return {_mm256_mul_ps(a.a, b.a), _mm256_mul_ps(a.b, b.b)}; }
INLINE f32 div(f32 a, f32 b) { return {_mm256_div_ps(a.a, b.a), _mm256_div_ps(a.b, b.b)}; }
INLINE f32 sqrt(f32 v) { return {_mm256_sqrt_ps(v.a), _mm256_sqrt_ps(v.b)}; }
INLINE f32 fma(f32 a, f32 b, f32 c) { return add(mul(a, b), c); }
INLINE f32 largest(f32 a, f32 b) { return {_mm256_max_ps(a.a, b.a), _mm256_max_ps(a.b, b.b)}; }
INLINE f32 magnitude(f32 v) {
  auto sign = _mm256_set1_ps(-0.0f);
  return {_mm256_andnot_ps(sign, v.a), _mm256_andnot_ps(sign, v.b)};
}
INLINE f32 select_greater(f32 a, f32 b, f32 x, f32 y) {
  return {_mm256_blendv_ps(y.a, x.a, _mm256_cmp_ps(a.a, b.a, _CMP_GT_OQ)),
          _mm256_blendv_ps(y.b, x.b, _mm256_cmp_ps(a.b, b.b, _CMP_GT_OQ))};
}
INLINE f32 first(f32 v, int64_t n, f32 other) {
  f32 index = {_mm256_setr_ps(0, 1, 2, 3, 4, 5, 6, 7), _mm256_setr_ps(8, 9, 10, 11, 12, 13, 14, 15)};
  return select_greater(splat_f32((float)n), index, v, other);
}
INLINE f32 pow2(i32 n) { return paired(pow2_quad(n)); }

// across lanes
INLINE float sum_f32(f32 v) {
  auto s = _mm256_add_ps(v.a, v.b);
  return sum_four(_mm_add_ps(_mm256_castps256_ps128(s), _mm256_extractf128_ps(s, 1)));
}
INLINE float max_f32(f32 v) {
  auto m = _mm256_max_ps(v.a, v.b);
  return max_four(_mm_max_ps(_mm256_castps256_ps128(m), _mm256_extractf128_ps(m, 1)));
}
INLINE float scalar(f32 v) { return _mm256_cvtss_f32(v.a); }

}
PYTHONIC_NS_END
#endif
