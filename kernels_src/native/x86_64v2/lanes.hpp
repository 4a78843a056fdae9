// The vocabulary for SSE4.2 (x86-64-v2), processors without AVX: a value is four 128-bit registers.
#ifndef LANES_HPP
#define LANES_HPP
#include "../x86_128.hpp"

PYTHONIC_NS_BEGIN
namespace lanes {

using f32 = quad;

// memory
template <class A> INLINE f32 load_f32(A const &a, int64_t i) {
  auto p = (float const *)at(a, i);
  return {_mm_loadu_ps(p), _mm_loadu_ps(p + 4), _mm_loadu_ps(p + 8), _mm_loadu_ps(p + 12)};
}
template <class A> INLINE f32 load_f16(A const &a, int64_t i) { return load_halves(a, i); }
template <class A> INLINE f32 load_bf16(A const &a, int64_t i) { return load_upper_halves(a, i); }
template <class A> INLINE none_type store_f32(A const &a, int64_t i, f32 v) {
  auto p = (float *)to(a, i);
  _mm_storeu_ps(p, v.a);
  _mm_storeu_ps(p + 4, v.b);
  _mm_storeu_ps(p + 8, v.c);
  _mm_storeu_ps(p + 12, v.d);
  return {};
}
template <class A> INLINE none_type store_f16(A const &a, int64_t i, f32 v) { return store_halves(a, i, v); }

// arithmetic
INLINE f32 splat_f32(float x) {
  auto v = _mm_set1_ps(x);
  return {v, v, v, v};
}
INLINE f32 to_f32(i32 v) {
  return each<f32>([](auto v) INLINED { return _mm_cvtepi32_ps(v); }, v);
}
INLINE i32 round_i32(f32 v) {
  return each<i32>([](auto v) INLINED { return _mm_cvtps_epi32(v); }, v);
}
INLINE f32 add(f32 a, f32 b) {
  return each<f32>([](auto a, auto b) INLINED { return _mm_add_ps(a, b); }, a, b);
}
INLINE f32 sub(f32 a, f32 b) {
  return each<f32>([](auto a, auto b) INLINED { return _mm_sub_ps(a, b); }, a, b);
}
INLINE f32 mul(f32 a, f32 b) {
  return each<f32>([](auto a, auto b) INLINED { return _mm_mul_ps(a, b); }, a, b);
}
INLINE f32 div(f32 a, f32 b) {
  return each<f32>([](auto a, auto b) INLINED { return _mm_div_ps(a, b); }, a, b);
}
INLINE f32 sqrt(f32 v) {
  return each<f32>([](auto v) INLINED { return _mm_sqrt_ps(v); }, v);
}
INLINE f32 fma(f32 a, f32 b, f32 c) { return add(mul(a, b), c); }
INLINE f32 largest(f32 a, f32 b) {
  return each<f32>([](auto a, auto b) INLINED { return _mm_max_ps(a, b); }, a, b);
}
INLINE f32 magnitude(f32 v) {
  return each<f32>([](auto v) INLINED { return _mm_andnot_ps(_mm_set1_ps(-0.0f), v); }, v);
}
INLINE f32 select_greater(f32 a, f32 b, f32 x, f32 y) {
  return each<f32>([](auto a, auto b, auto x, auto y) INLINED {
    return _mm_blendv_ps(y, x, _mm_cmpgt_ps(a, b));
  }, a, b, x, y);
}
INLINE f32 first(f32 v, int64_t n, f32 other) {
  f32 index = {_mm_setr_ps(0, 1, 2, 3), _mm_setr_ps(4, 5, 6, 7),
               _mm_setr_ps(8, 9, 10, 11), _mm_setr_ps(12, 13, 14, 15)};
  return select_greater(splat_f32((float)n), index, v, other);
}
INLINE f32 pow2(i32 n) { return pow2_quad(n); }

// across lanes
INLINE float sum_f32(f32 v) { return sum_four(_mm_add_ps(_mm_add_ps(v.a, v.c), _mm_add_ps(v.b, v.d))); }
INLINE float max_f32(f32 v) { return max_four(_mm_max_ps(_mm_max_ps(v.a, v.c), _mm_max_ps(v.b, v.d))); }
INLINE float scalar(f32 v) { return _mm_cvtss_f32(v.a); }

}
PYTHONIC_NS_END
#endif
