// Writes a block of results: rounded to storage, and past the caches where the caller says that nothing there will be
// read before it is evicted. A plain store first fetches the line that it overwrites, a third of the traffic.

#pragma once

#include <cstdint>
#include <cstring>

#if defined(__SSE2__)
#include <immintrin.h>
#endif

namespace {

constexpr int kLine = 64;

// Copies `bytes` from `from`, which is aligned to a line, to `to`; by streaming where `to` is aligned too.
inline void stream_lines(void* to, const void* from, int64_t bytes) {
  int64_t done = 0;
#if defined(__SSE2__)
  if (reinterpret_cast<uintptr_t>(to) % kLine == 0) {
    char* out = static_cast<char*>(to);
    const char* in = static_cast<const char*>(from);
    for (; done + kLine <= bytes; done += kLine) {
#if defined(__AVX512F__)
      _mm512_stream_si512(reinterpret_cast<__m512i*>(out + done), _mm512_load_si512(in + done));
#else
      for (int part = 0; part < kLine; part += 16)
        _mm_stream_si128(reinterpret_cast<__m128i*>(out + done + part),
                         _mm_load_si128(reinterpret_cast<const __m128i*>(in + done + part)));
#endif
    }
  }
#endif
  std::memcpy(static_cast<char*>(to) + done, static_cast<const char*>(from) + done, bytes - done);
}

// Orders streamed lines before whatever the thread does next.
inline void end_streaming() {
#if defined(__SSE2__)
  _mm_sfence();
#endif
}

}  // namespace
