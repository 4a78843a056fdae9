// AArch64's NEON: all of the vocabulary but the product of bytes. A value is four 128-bit registers.
#ifndef NEON_HPP
#define NEON_HPP
#include <arm_neon.h>
#include "memory.hpp"

PYTHONIC_NS_BEGIN
namespace lanes {

struct i32 { int32x4_t a, b, c, d; };
struct f32 { float32x4_t a, b, c, d; };
struct u8 { uint8x16_t a, b, c, d; };
using acc = i32;

INLINE bool wide() { return false; }

template <class T, class F, class... V> INLINE T each(F f, V... v) {
  return {f(v.a...), f(v.b...), f(v.c...), f(v.d...)};
}

// memory
template <class A> INLINE u8 load_u8(A const &a, int64_t i) {
  auto p = (uint8_t const *)at(a, i);
  return {vld1q_u8(p), vld1q_u8(p + 16), vld1q_u8(p + 32), vld1q_u8(p + 48)};
}
template <class A> INLINE f32 load_f32(A const &a, int64_t i) {
  auto p = (float const *)at(a, i);
  return {vld1q_f32(p), vld1q_f32(p + 4), vld1q_f32(p + 8), vld1q_f32(p + 12)};
}
struct halves { uint16x4_t a, b, c, d; };
template <class A> INLINE halves load_halves(A const &a, int64_t i) {
  auto p = (uint16_t const *)at(a, i);
  return {vld1_u16(p), vld1_u16(p + 4), vld1_u16(p + 8), vld1_u16(p + 12)};
}
template <class A> INLINE f32 load_f16(A const &a, int64_t i) {
  return each<f32>([](auto h) INLINED { return vcvt_f32_f16(vreinterpret_f16_u16(h)); }, load_halves(a, i));
}
template <class A> INLINE f32 load_bf16(A const &a, int64_t i) {
  return each<f32>([](auto h) INLINED { return vreinterpretq_f32_u32(vshll_n_u16(h, 16)); }, load_halves(a, i));
}
INLINE i32 widen_i16(int16x8_t v, int16x8_t w) {
  return {vmovl_s16(vget_low_s16(v)), vmovl_high_s16(v), vmovl_s16(vget_low_s16(w)), vmovl_high_s16(w)};
}
template <class A> INLINE i32 widen_u8(A const &a, int64_t i) {
  auto v = vld1q_u8((uint8_t const *)at(a, i));
  return widen_i16(vreinterpretq_s16_u16(vmovl_u8(vget_low_u8(v))), vreinterpretq_s16_u16(vmovl_high_u8(v)));
}
template <class A> INLINE i32 widen_i8(A const &a, int64_t i) {
  auto v = vld1q_s8((int8_t const *)at(a, i));
  return widen_i16(vmovl_s8(vget_low_s8(v)), vmovl_high_s8(v));
}
template <class A> INLINE none_type store_f32(A const &a, int64_t i, f32 v) {
  auto p = (float *)to(a, i);
  vst1q_f32(p, v.a);
  vst1q_f32(p + 4, v.b);
  vst1q_f32(p + 8, v.c);
  vst1q_f32(p + 12, v.d);
  return {};
}
INLINE uint16x4_t narrow_f16(float32x4_t v) { return vreinterpret_u16_f16(vcvt_f16_f32(v)); }
template <class A> INLINE none_type store_f16(A const &a, int64_t i, f32 v) {
  auto p = (uint16_t *)to(a, i);
  vst1_u16(p, narrow_f16(v.a));
  vst1_u16(p + 4, narrow_f16(v.b));
  vst1_u16(p + 8, narrow_f16(v.c));
  vst1_u16(p + 12, narrow_f16(v.d));
  return {};
}
template <class A> INLINE none_type store_i8(A const &a, int64_t i, i32 v) {
  auto low = vcombine_s16(vmovn_s32(v.a), vmovn_s32(v.b)), high = vcombine_s16(vmovn_s32(v.c), vmovn_s32(v.d));
  vst1q_s8((int8_t *)to(a, i), vcombine_s8(vmovn_s16(low), vmovn_s16(high)));
  return {};
}
template <class A> INLINE none_type put_f16(A const &a, int64_t i, float x) {
  vst1_lane_u16((uint16_t *)to(a, i), narrow_f16(vdupq_n_f32(x)), 0);
  return {};
}

// 8-bit products, but for `dot`: s + the four products of every four bytes of w and x, which a variant defines
INLINE int32x4_t dot(int32x4_t s, int8x16_t w, int8x16_t x);

INLINE u8 bits(u8 w, int n, int mask) {
  auto right = vdupq_n_s8((int8_t)-n);
  auto m = vdupq_n_u8((uint8_t)mask);
  return each<u8>([=](auto w) INLINED { return vandq_u8(vshlq_u8(w, right), m); }, w);
}
INLINE u8 join(u8 low, u8 high, int n) {
  auto left = vdupq_n_s8((int8_t)n);
  return each<u8>([=](auto low, auto high) INLINED { return vorrq_u8(low, vshlq_u8(high, left)); }, low, high);
}
INLINE u8 iq4(u8 w) {
  auto values = vreinterpretq_u8_s8(vld1q_s8(IQ4_VALUES));
  return each<u8>([=](auto w) INLINED { return vqtbl1q_u8(values, w); }, w);
}
INLINE i32 splat_i32(int x) {
  auto v = vdupq_n_s32(x);
  return {v, v, v, v};
}
INLINE i32 zero_i8(int64_t) { return splat_i32(0); }
template <class A> INLINE i32 dot4_i8(i32 s, u8 w, A const &x, int64_t j) {
  auto v = vreinterpretq_s8_s32(vdupq_n_s32(four(x, j)));
  return each<i32>([v](auto s, auto w) INLINED { return dot(s, vreinterpretq_s8_u8(w), v); }, s, w);
}
INLINE acc zero_acc() { return splat_i32(0); }
template <class A> INLINE acc dot4(acc s, u8 w, A const &x, int64_t j) { return dot4_i8(s, w, x, j); }
INLINE i32 widen(acc s) { return s; }

// arithmetic
INLINE f32 splat_f32(float x) {
  auto v = vdupq_n_f32(x);
  return {v, v, v, v};
}
INLINE i32 add_i32(i32 a, i32 b) {
  return each<i32>([](auto a, auto b) INLINED { return vaddq_s32(a, b); }, a, b);
}
INLINE i32 and_i32(i32 v, int mask) {
  return each<i32>([m = vdupq_n_s32(mask)](auto v) INLINED { return vandq_s32(v, m); }, v);
}
INLINE i32 shift_i32(i32 v, int n) {
  return each<i32>([right = vdupq_n_s32(-n)](auto v) INLINED { return vshlq_s32(v, right); }, v);
}
INLINE f32 to_f32(i32 v) {
  return each<f32>([](auto v) INLINED { return vcvtq_f32_s32(v); }, v);
}
INLINE i32 round_i32(f32 v) {
  return each<i32>([](auto v) INLINED { return vcvtnq_s32_f32(v); }, v);
}
INLINE f32 add(f32 a, f32 b) {
  return each<f32>([](auto a, auto b) INLINED { return vaddq_f32(a, b); }, a, b);
}
INLINE f32 sub(f32 a, f32 b) {
  return each<f32>([](auto a, auto b) INLINED { return vsubq_f32(a, b); }, a, b);
}
INLINE f32 mul(f32 a, f32 b) {
  return each<f32>([](auto a, auto b) INLINED { return vmulq_f32(a, b); }, a, b);
}
INLINE f32 div(f32 a, f32 b) {
  return each<f32>([](auto a, auto b) INLINED { return vdivq_f32(a, b); }, a, b);
}
INLINE f32 sqrt(f32 v) {
  return each<f32>([](auto v) INLINED { return vsqrtq_f32(v); }, v);
}
INLINE f32 fma(f32 a, f32 b, f32 c) {
  return each<f32>([](auto a, auto b, auto c) INLINED { return vfmaq_f32(c, a, b); }, a, b, c);
}
INLINE float32x4_t largest(float32x4_t a, float32x4_t b) {
  return vbslq_f32(vcgtq_f32(a, b), a, b);  // vmaxq: other NaNs
}
INLINE f32 largest(f32 a, f32 b) {
  return each<f32>([](auto a, auto b) INLINED { return largest(a, b); }, a, b);
}
INLINE f32 magnitude(f32 v) {
  return each<f32>([](auto v) INLINED { return vabsq_f32(v); }, v);
}
INLINE f32 select_greater(f32 a, f32 b, f32 x, f32 y) {
  return each<f32>([](auto a, auto b, auto x, auto y) INLINED { return vbslq_f32(vcgtq_f32(a, b), x, y); }, a, b, x, y);
}
INLINE f32 first(f32 v, int64_t n, f32 other) {
  i32 index = {{0, 1, 2, 3}, {4, 5, 6, 7}, {8, 9, 10, 11}, {12, 13, 14, 15}};
  auto count = vdupq_n_s32((int)n);
  return each<f32>([count](auto v, auto index, auto other) INLINED {
    return vbslq_f32(vcgtq_s32(count, index), v, other);
  }, v, index, other);
}
INLINE f32 pow2(i32 n) {
  return each<f32>([](auto n) INLINED {
    return vreinterpretq_f32_s32(vshlq_n_s32(vaddq_s32(n, vdupq_n_s32(127)), 23));
  }, n);
}

// across lanes
INLINE float sum_f32(f32 v) {
  auto w = vaddq_f32(vaddq_f32(v.a, v.c), vaddq_f32(v.b, v.d));
  auto x = vadd_f32(vget_low_f32(w), vget_high_f32(w));
  return vget_lane_f32(x, 0) + vget_lane_f32(x, 1);
}
INLINE float max_f32(f32 v) {
  auto w = largest(largest(v.a, v.c), largest(v.b, v.d));
  w = largest(w, vextq_f32(w, w, 2));
  return vgetq_lane_f32(largest(w, vextq_f32(w, w, 1)), 0);
}
INLINE float scalar(f32 v) { return vgetq_lane_f32(v.a, 0); }
INLINE int sum_i32(i32 v) { return vaddvq_s32(vaddq_s32(vaddq_s32(v.a, v.b), vaddq_s32(v.c, v.d))); }

}
PYTHONIC_NS_END
#endif
