// Threads within one parallel region: sharing out work, and waiting for each other. The same for every variant.
#ifndef THREADS_HPP
#define THREADS_HPP
#include <cstdint>
#include <omp.h>
#ifdef __linux__
#include <linux/futex.h>
#include <sys/syscall.h>
#include <unistd.h>
#else
#include <thread>
#endif

// A kernel is one long stretch of instructions: what is left as a call costs more than the function does.
#ifndef INLINE
#define INLINE inline __attribute__((always_inline))
#endif
#define NOINLINE inline __attribute__((noinline))

PYTHONIC_NS_BEGIN
namespace lanes {

template <class T> struct address {
  T *buffer;
  T const &operator[](int64_t i) const { return buffer[i]; }
  T &operator[](int64_t i) { return buffer[i]; }
  T const &fast(int64_t i) const { return buffer[i]; }
  T &fast(int64_t i) { return buffer[i]; }
};
template <class A> INLINE auto view(A const &a) {
  return address<std::remove_const_t<std::remove_reference_t<decltype(*a.buffer)>>>{a.buffer};
}

INLINE void relax() {
#if defined(__x86_64__) || defined(__i386__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  asm volatile("yield");
#endif
}

INLINE int64_t thread() { return omp_get_thread_num(); }
INLINE int64_t team() { return omp_get_num_threads(); }

template <class A> INLINE int64_t poll(A const &a) { return *(volatile int32_t const *)a.buffer; }

template <class A> INLINE int64_t take(A const &a, int64_t i, int64_t n) {
  return __atomic_fetch_add((int32_t *)a.buffer + i, (int32_t)n, __ATOMIC_RELAXED);
}

// Spins for some microseconds, which is longer than even work takes to end, and then sleeps, so that a thread which
// lost its processor to another program can have this one's.
constexpr int SPINS = 400;

template <class A, class B> INLINE int64_t barrier(A const &a, B const &stop, int64_t threads) {
  auto s = (int32_t *)a.buffer;  // arrived, generation, sleepers, and the answers of an even and of an odd generation
  int32_t generation = __atomic_load_n(s + 1, __ATOMIC_ACQUIRE);
  if (__atomic_add_fetch(s, 1, __ATOMIC_ACQ_REL) == threads) {
    s[3 + (generation & 1)] = (int32_t)poll(stop);
    s[0] = 0;
    __atomic_store_n(s + 1, generation + 1, __ATOMIC_SEQ_CST);
#ifdef __linux__
    if (__atomic_load_n(s + 2, __ATOMIC_SEQ_CST))
      syscall(SYS_futex, s + 1, FUTEX_WAKE_PRIVATE, INT32_MAX, nullptr, nullptr, 0);
#endif
  } else {
    for (int i = 0; __atomic_load_n(s + 1, __ATOMIC_ACQUIRE) == generation; ++i) {
      if (i < SPINS) {
        relax();
        continue;
      }
#ifdef __linux__
      __atomic_add_fetch(s + 2, 1, __ATOMIC_SEQ_CST);
      syscall(SYS_futex, s + 1, FUTEX_WAIT_PRIVATE, generation, nullptr, nullptr, 0);
      __atomic_sub_fetch(s + 2, 1, __ATOMIC_SEQ_CST);
#else
      std::this_thread::yield();
#endif
    }
  }
  return s[3 + (generation & 1)];
}

}
PYTHONIC_NS_END
#endif
