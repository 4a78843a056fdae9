// The vocabulary in plain C++, for any processor:
// a value is an array of sixteen, and the compiler makes what it can of it.
#ifndef LANES_HPP
#define LANES_HPP
#include <cmath>
#define INLINE inline  // its loops are too long to be copied everywhere
#include "../memory.hpp"

PYTHONIC_NS_BEGIN
namespace lanes {

struct i32 { int32_t v[16]; };
struct f32 { float v[16]; };
struct u8 { uint8_t v[64]; };
struct acc { int32_t v[16]; };

template <class T, class F> INLINE T each(F f) {
  T r;
  for (int l = 0; l < 16; ++l)
    r.v[l] = f(l);
  return r;
}
template <class To, class From> INLINE To bits(From from) {
  static_assert(sizeof(To) == sizeof(From), "same size");
  To r;
  std::memcpy(&r, &from, sizeof r);
  return r;
}
INLINE float widen_f16(uint16_t h) {
  uint32_t sign = (uint32_t)(h & 0x8000) << 16, rest = h & 0x7fff;
  if (rest >= 0x7c00)  // infinity and not a number
    return bits<float>(sign | 0x7f800000 | (rest & 0x3ff) << 13);
  if (rest >= 0x400)
    return bits<float>(sign | ((rest << 13) + ((127 - 15) << 23)));
  float small = (float)rest * 5.9604644775390625e-08f;  // subnormal: a multiple of 2^-24
  return bits<float>(sign | bits<uint32_t>(small));
}
INLINE uint16_t narrow_f16(float x) {
  uint32_t u = bits<uint32_t>(x), sign = u >> 16 & 0x8000, rest = u & 0x7fffffff;
  if (rest > 0x7f800000)
    return (uint16_t)(sign | 0x7e00 | (rest >> 13 & 0x3ff));
  if (rest >= 0x477ff000)  // rounds beyond 65504
    return (uint16_t)(sign | 0x7c00);
  if (rest < 0x38800000)  // subnormal: adding 0.5 leaves the multiple of 2^-24, rounded to even, in the low bits
    return (uint16_t)(sign | (bits<uint32_t>(bits<float>(rest) + 0.5f) - 0x3f000000));
  return (uint16_t)(sign | ((rest + 0xfff + (rest >> 13 & 1) - ((127 - 15) << 23)) >> 13));
}

template <class V, class A> INLINE V load(A const &a, int64_t i) {
  V r;
  std::memcpy(&r, at(a, i), sizeof r);
  return r;
}
template <class A> INLINE int product(uint8_t const *w, A const &x, int64_t j) {
  return w[0] * x.buffer[j] + w[1] * x.buffer[j + 1] + w[2] * x.buffer[j + 2] + w[3] * x.buffer[j + 3];
}
template <class A> INLINE int product(int8_t const *w, A const &x, int64_t j) {
  return w[0] * x.buffer[j] + w[1] * x.buffer[j + 1] + w[2] * x.buffer[j + 2] + w[3] * x.buffer[j + 3];
}

INLINE bool wide() { return false; }

// memory
template <class A> INLINE u8 load_u8(A const &a, int64_t i) { return load<u8>(a, i); }
template <class A> INLINE f32 load_f32(A const &a, int64_t i) { return load<f32>(a, i); }
struct halves { uint16_t v[16]; };
template <class A> INLINE f32 load_f16(A const &a, int64_t i) {
  auto h = load<halves>(a, i);
  return each<f32>([&](int l) { return widen_f16(h.v[l]); });
}
template <class A> INLINE f32 load_bf16(A const &a, int64_t i) {
  auto h = load<halves>(a, i);
  return each<f32>([&](int l) { return bits<float>((uint32_t)h.v[l] << 16); });
}
struct octets { uint8_t v[16]; };
template <class A> INLINE i32 widen_u8(A const &a, int64_t i) {
  auto o = load<octets>(a, i);
  return each<i32>([&](int l) { return (int32_t)o.v[l]; });
}
template <class A> INLINE i32 widen_i8(A const &a, int64_t i) {
  auto o = load<octets>(a, i);
  return each<i32>([&](int l) { return (int32_t)(int8_t)o.v[l]; });
}
template <class A> INLINE none_type store_f32(A const &a, int64_t i, f32 v) {
  std::memcpy(to(a, i), &v, sizeof v);
  return {};
}
template <class A> INLINE none_type put_f16(A const &a, int64_t i, float x) {
  uint16_t h = narrow_f16(x);
  std::memcpy(to(a, i), &h, sizeof h);
  return {};
}
template <class A> INLINE none_type store_f16(A const &a, int64_t i, f32 v) {
  for (int l = 0; l < 16; ++l)
    put_f16(a, i + l, v.v[l]);
  return {};
}
template <class A> INLINE none_type store_i8(A const &a, int64_t i, i32 v) {
  for (int l = 0; l < 16; ++l)
    a.buffer[i + l] = (int8_t)v.v[l];
  return {};
}

// 8-bit products
INLINE u8 bits(u8 w, int n, int mask) {
  for (auto &b : w.v)
    b = (uint8_t)(b >> n & mask);
  return w;
}
INLINE u8 join(u8 low, u8 high, int n) {
  for (int i = 0; i < 64; ++i)
    low.v[i] = (uint8_t)(low.v[i] | high.v[i] << n);
  return low;
}
INLINE u8 iq4(u8 w) {
  for (auto &b : w.v)
    b = (uint8_t)IQ4_VALUES[b];
  return w;
}
INLINE acc zero_acc() { return {}; }
template <class A> INLINE acc dot4(acc s, u8 w, A const &x, int64_t j) {
  return each<acc>([&](int l) { return s.v[l] + product(w.v + 4 * l, x, j); });
}
INLINE i32 widen(acc s) { return bits<i32>(s); }
INLINE i32 zero_i8(int64_t) { return {}; }
template <class A> INLINE i32 dot4_i8(i32 s, u8 w, A const &x, int64_t j) {
  return each<i32>([&](int l) { return s.v[l] + product((int8_t const *)w.v + 4 * l, x, j); });
}

// arithmetic
INLINE i32 splat_i32(int x) { return each<i32>([&](int) { return x; }); }
INLINE f32 splat_f32(float x) { return each<f32>([&](int) { return x; }); }
INLINE i32 add_i32(i32 a, i32 b) { return each<i32>([&](int l) { return a.v[l] + b.v[l]; }); }
INLINE i32 and_i32(i32 v, int mask) { return each<i32>([&](int l) { return v.v[l] & mask; }); }
INLINE i32 shift_i32(i32 v, int n) { return each<i32>([&](int l) { return v.v[l] >> n; }); }
INLINE f32 to_f32(i32 v) { return each<f32>([&](int l) { return (float)v.v[l]; }); }
INLINE i32 round_i32(f32 v) {
  return each<i32>([&](int l) {
    float whole = std::nearbyint(v.v[l]);
    // C++ leaves open what the others would be
    return whole >= -0x1p31f && whole < 0x1p31f ? (int32_t)whole : INT32_MIN;
  });
}
INLINE f32 add(f32 a, f32 b) { return each<f32>([&](int l) { return a.v[l] + b.v[l]; }); }
INLINE f32 sub(f32 a, f32 b) { return each<f32>([&](int l) { return a.v[l] - b.v[l]; }); }
INLINE f32 mul(f32 a, f32 b) { return each<f32>([&](int l) { return a.v[l] * b.v[l]; }); }
INLINE f32 div(f32 a, f32 b) { return each<f32>([&](int l) { return a.v[l] / b.v[l]; }); }
INLINE f32 sqrt(f32 v) { return each<f32>([&](int l) { return std::sqrt(v.v[l]); }); }
INLINE f32 fma(f32 a, f32 b, f32 c) { return each<f32>([&](int l) { return a.v[l] * b.v[l] + c.v[l]; }); }
INLINE f32 largest(f32 a, f32 b) { return each<f32>([&](int l) { return a.v[l] > b.v[l] ? a.v[l] : b.v[l]; }); }
INLINE f32 magnitude(f32 v) { return each<f32>([&](int l) { return std::fabs(v.v[l]); }); }
INLINE f32 select_greater(f32 a, f32 b, f32 x, f32 y) {
  return each<f32>([&](int l) { return a.v[l] > b.v[l] ? x.v[l] : y.v[l]; });
}
INLINE f32 first(f32 v, int64_t n, f32 other) { return each<f32>([&](int l) { return l < n ? v.v[l] : other.v[l]; }); }
INLINE f32 pow2(i32 n) { return each<f32>([&](int l) { return bits<float>((uint32_t)(n.v[l] + 127) << 23); }); }

// across lanes
INLINE float sum_f32(f32 v) {
  for (int n = 8; n; n /= 2)
    for (int l = 0; l < n; ++l)
      v.v[l] = v.v[l] + v.v[l + n];
  return v.v[0];
}
INLINE float max_f32(f32 v) {
  for (int n = 8; n; n /= 2)
    for (int l = 0; l < n; ++l)
      v.v[l] = v.v[l] > v.v[l + n] ? v.v[l] : v.v[l + n];
  return v.v[0];
}
INLINE float scalar(f32 v) { return v.v[0]; }
INLINE int sum_i32(i32 v) {
  unsigned s = 0;  // which wraps, as NumPy's sum does
  for (int x : v.v)
    s += unsigned(x);
  return int(s);
}

}
PYTHONIC_NS_END
#endif
