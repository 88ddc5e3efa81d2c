// Gated linear units for the CPU, forward and backward. CMake builds this file once an instruction set.
//
// GELU is u Φ(u). Φ(-a) = exp(-a²/2) R(a) for a >= 0, R being half the scaled complementary error function of a/√2: a
// polynomial in 1/(1 + 0.26 a), minimax to 5 parts in 10⁹ on [0, 9].

#include "lanes.h"
#include "trilemma/cpu.h"

namespace {

using trilemma::Glu;

struct Normal {
  Lanes below, bell;  // Φ(u), and exp(-u²/2)
};

TRILEMMA_INLINE Normal normal(Lanes u) {
  const Lanes a = at_most(u < 0.0f ? -u : u, 1e3f);
  const Lanes t = reciprocal(1.0f + 0x1.0a3d70p-2f * a), bell = exponential(-0.5f * (a * a));
  Lanes p = t * 0x1.0e4bbap-5f - 0x1.524d1cp-3f;
  p = p * t + 0x1.1c5664p-2f;
  p = p * t - 0x1.746624p-3f;
  p = p * t + 0x1.76fec0p-3f;
  p = p * t + 0x1.5111aep-5f;
  p = p * t + 0x1.b0f606p-4f;
  p = p * t + 0x1.a450c2p-4f;
  p = p * t + 0x1.a919f8p-4f;
  const Lanes beyond = p * t * bell;
  return {u < 0.0f ? beyond : 1.0f - beyond, bell};
}

template <bool kSilu>
TRILEMMA_INLINE Lanes activated(Lanes u) {
  if constexpr (kSilu)
    return silu(u);
  else
    return u * normal(u).below;
}

// act(u) and its derivative.
struct Slope {
  Lanes value, slope;
};

template <bool kSilu>
TRILEMMA_INLINE Slope sloped(Lanes u) {
  if constexpr (kSilu) {
    const Lanes e = exponential(-u);
    const Lanes sigmoid = reciprocal(1.0f + e);
    return {u * sigmoid, sigmoid * (1.0f + u * (e * sigmoid))};
  } else {
    const Normal n = normal(u);
    return {u * n.below, n.below + u * (n.bell * 0x1.988454p-2f)};  // 1/√(2π)
  }
}

template <class T, bool kSilu, bool kStream>
void forward(const Glu& call, int64_t begin, int64_t end) {
  const int64_t count = call.channels;
  for (int64_t row = begin; row < end; ++row) {
    const T *a = static_cast<const T*>(call.x) + row * call.x_stride, *g = a + count;
    T* out = static_cast<T*>(call.out) + row * count;
    int64_t i = 0;
    for (; i + kLanes <= count; i += kLanes) {
      const Lanes made = load(a + i) * activated<kSilu>(load(g + i));
      if constexpr (kStream && sizeof(T) == 4)
        stream(out + i, made);
      else
        store(out + i, made);
    }
    if (const int64_t left = count - i; left > 0)
      store(out + i, load(a + i, left) * activated<kSilu>(load(g + i, left)), left);
  }
  if (kStream) fence();
}

template <class T, bool kSilu>
void backward(const Glu& call, int64_t begin, int64_t end) {
  const int64_t count = call.channels;
  for (int64_t row = begin; row < end; ++row) {
    const T *a = static_cast<const T*>(call.x) + row * call.x_stride, *g = a + count;
    const T* dy = static_cast<const T*>(call.dy) + row * count;
    T *da = static_cast<T*>(call.dx) + row * 2 * count, *dg = da + count;
    int64_t i = 0;
    for (; i + kLanes <= count; i += kLanes) {
      const Slope act = sloped<kSilu>(load(g + i));
      const Lanes d = load(dy + i);
      store(da + i, d * act.value);
      store(dg + i, d * load(a + i) * act.slope);
    }
    if (const int64_t left = count - i; left > 0) {
      const Slope act = sloped<kSilu>(load(g + i, left));
      const Lanes d = load(dy + i, left);
      store(da + i, d * act.value, left);
      store(dg + i, d * load(a + i, left) * act.slope, left);
    }
  }
}

template <class T>
void run(const Glu& call, int64_t begin, int64_t end) {
  const bool streams = sizeof(T) == 4 && call.stream && call.channels % kLanes == 0 &&
                       reinterpret_cast<uintptr_t>(call.out) % sizeof(Lanes) == 0;
  if (streams)
    call.silu ? forward<T, true, true>(call, begin, end) : forward<T, false, true>(call, begin, end);
  else
    call.silu ? forward<T, true, false>(call, begin, end) : forward<T, false, false>(call, begin, end);
}

template <class T>
void run_backward(const Glu& call, int64_t begin, int64_t end) {
  call.silu ? backward<T, true>(call, begin, end) : backward<T, false>(call, begin, end);
}

}  // namespace

namespace trilemma::cpu::TRILEMMA_ISA {

void glu_float32(const Glu& call, int64_t begin, int64_t end) { run<Float32>(call, begin, end); }
void glu_bfloat16(const Glu& call, int64_t begin, int64_t end) { run<BFloat16>(call, begin, end); }
void glu_float16(const Glu& call, int64_t begin, int64_t end) { run<Float16>(call, begin, end); }

void glu_backward_float32(const Glu& call, int64_t begin, int64_t end) { run_backward<Float32>(call, begin, end); }
void glu_backward_bfloat16(const Glu& call, int64_t begin, int64_t end) { run_backward<BFloat16>(call, begin, end); }
void glu_backward_float16(const Glu& call, int64_t begin, int64_t end) { run_backward<Float16>(call, begin, end); }

}  // namespace trilemma::cpu::TRILEMMA_ISA
