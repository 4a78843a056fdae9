// Stands before the compiler's own header: AVX-512 and AVX-VNNI as SIMDe computes them, for processors that have AVX2
// only. What the kernels use and SIMDe 0.7.4 lacks is added below, a half of 256 bits at a time.
#ifndef EMULATED_IMMINTRIN_H
#define EMULATED_IMMINTRIN_H
#include_next <immintrin.h>
#define SIMDE_ENABLE_NATIVE_ALIASES
#include <simde/x86/avx512.h>
#include <simde/x86/f16c.h>
#include <simde/x86/fma.h>

namespace emulated {

inline __m512i whole(__m256i low, __m256i high) {
  simde__m512i_private v;
  v.m256i[0] = low;
  v.m256i[1] = high;
  return simde__m512i_from_private(v);
}
inline __m512 whole(__m256 low, __m256 high) {
  simde__m512_private v;
  v.m256[0] = low;
  v.m256[1] = high;
  return simde__m512_from_private(v);
}
inline __m256i half(__m512i v, int i) { return simde__m512i_to_private(v).m256i[i]; }
inline __m256 half(__m512 v, int i) { return simde__m512_to_private(v).m256[i]; }
inline __m128i low(__m256i v) { return _mm256_castsi256_si128(v); }
inline __m128i high(__m256i v) { return _mm256_extracti128_si256(v, 1); }
inline __m128i upper(__m128i v) { return _mm_srli_si128(v, 8); }

inline __m512 cvtepi32_ps(__m512i v) { return whole(_mm256_cvtepi32_ps(half(v, 0)), _mm256_cvtepi32_ps(half(v, 1))); }
inline __m512i cvtps_epi32(__m512 v) { return whole(_mm256_cvtps_epi32(half(v, 0)), _mm256_cvtps_epi32(half(v, 1))); }
inline __m512i cvtepi8_epi32(__m128i v) { return whole(_mm256_cvtepi8_epi32(v), _mm256_cvtepi8_epi32(upper(v))); }
inline __m512i cvtepu8_epi32(__m128i v) { return whole(_mm256_cvtepu8_epi32(v), _mm256_cvtepu8_epi32(upper(v))); }
inline __m512i cvtepu16_epi32(__m256i v) {
  return whole(_mm256_cvtepu16_epi32(low(v)), _mm256_cvtepu16_epi32(high(v)));
}
inline __m512 cvtph_ps(__m256i v) { return whole(_mm256_cvtph_ps(low(v)), _mm256_cvtph_ps(high(v))); }
inline __m256i cvtps_ph(__m512 v, int) {
  return _mm256_set_m128i(_mm256_cvtps_ph(half(v, 1), 0), _mm256_cvtps_ph(half(v, 0), 0));
}
inline __m512i srai_epi32(__m512i v, int n) {
  return whole(_mm256_srai_epi32(half(v, 0), n), _mm256_srai_epi32(half(v, 1), n));
}
inline float cvtss_f32(__m512 v) { return _mm256_cvtss_f32(half(v, 0)); }
inline __m128i cvtepi32_epi8(__m512i v) {
  __m128i r;
  for (int l = 0; l < 16; ++l)
    ((signed char *)&r)[l] = (signed char)((int *)&v)[l];
  return r;
}
inline int reduce_add_epi32(__m512i v) {
  int sum = 0;
  for (int l = 0; l < 16; ++l)
    sum += ((int *)&v)[l];
  return sum;
}

}

#define _mm512_cvtepi32_ps emulated::cvtepi32_ps
#define _mm512_cvtps_epi32 emulated::cvtps_epi32
#define _mm512_cvtepi8_epi32 emulated::cvtepi8_epi32
#define _mm512_cvtepu8_epi32 emulated::cvtepu8_epi32
#define _mm512_cvtepu16_epi32 emulated::cvtepu16_epi32
#undef _mm512_cvtph_ps
#define _mm512_cvtph_ps emulated::cvtph_ps
#undef _mm512_cvtps_ph
#define _mm512_cvtps_ph emulated::cvtps_ph
#undef _mm512_srai_epi32
#define _mm512_srai_epi32 emulated::srai_epi32
#define _mm512_cvtss_f32 emulated::cvtss_f32
#define _mm512_cvtepi32_epi8 emulated::cvtepi32_epi8
#define _mm512_reduce_add_epi32 emulated::reduce_add_epi32
#undef _mm512_madd_epi16  // SIMDe's takes the four arguments of another intrinsic
#define _mm512_madd_epi16 simde_mm512_madd_epi16
#define _mm256_dpbusd_avx_epi32 simde_mm256_dpbusd_epi32
#endif
