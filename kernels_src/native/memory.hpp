// What every variant includes: Pythran's arrays, where their elements are, and the threads.
#ifndef MEMORY_HPP
#define MEMORY_HPP
#include "pythonic/include/utils/functor.hpp"
#include "pythonic/include/types/ndarray.hpp"
#include <cstdint>
#include <cstring>
#include "threads.hpp"

PYTHONIC_NS_BEGIN
namespace lanes {

using types::none_type;

#define INLINED __attribute__((always_inline))

alignas(16) constexpr int8_t IQ4_VALUES[16] = {
  -127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113
};

template <class A> INLINE void const *at(A const &a, int64_t i) { return a.buffer + i; }
template <class A> INLINE void *to(A const &a, int64_t i) { return (void *)(a.buffer + i); }
template <class A> INLINE none_type soon(A const &a, int64_t i) {
  __builtin_prefetch(at(a, i));
  return {};
}
template <class A> INLINE int32_t four(A const &x, int64_t j) {  // bytes
  int32_t t;
  std::memcpy(&t, x.buffer + j, 4);
  return t;
}

}
PYTHONIC_NS_END
#endif
