// The gradient of attention for the CPU, a head at a time. CMake builds this file once an instruction set.
//
//   P = exp(S - lse),  dS = P * (dout v^T - delta),  delta = sum_d dout out
//   dq = scale dS k,  dk = scale dS^T q,  dv = P^T dout
//
// Lanes are queries in S, P and dS, as in the forward, and the depth in dk and dv. All in float32.

#include "attention_panel.h"
#include "scratch.h"

namespace {

using trilemma::AttentionBackward;

// What one head is computed in. Rows are [tokens][width], lanes [depth][kLanes], scores [kKeys][kLanes].
struct Room {
  int64_t width;
  float *k, *v, *dk, *dv;                   // rows, all keys
  float *queries, *dout, *dq;               // lanes of a block of queries
  float *query_rows, *dout_rows;            // rows of it
  float *probabilities, *dscores;
  Vector lse[2], delta[2];
};

template <int Rows>
TRILEMMA_INLINE void score_gradients(const Room& room, const float* k, const float* v, int64_t key, int64_t depth) {
  Vector p[Rows][2], dp[Rows][2];
#pragma GCC unroll 8
  for (int i = 0; i < Rows; ++i)
#pragma GCC unroll 2
    for (int n = 0; n < 2; ++n) p[i][n] = -room.lse[n];
  multiply<Single, Rows, 2, false>(k + key * room.width, room.width, room.queries, depth, p, kLanes);
#pragma GCC unroll 8
  for (int i = 0; i < Rows; ++i)
#pragma GCC unroll 2
    for (int n = 0; n < 2; ++n) {
      p[i][n] = exp2_below<Single::kDegree>(p[i][n]);
      store(room.probabilities + (key + i) * kLanes + n * kWidth, p[i][n]);
    }
#pragma GCC unroll 8
  for (int i = 0; i < Rows; ++i)
#pragma GCC unroll 2
    for (int n = 0; n < 2; ++n) dp[i][n] = -room.delta[n];
  multiply<Single, Rows, 2, false>(v + key * room.width, room.width, room.dout, depth, dp, kLanes);
#pragma GCC unroll 8
  for (int i = 0; i < Rows; ++i)
#pragma GCC unroll 2
    for (int n = 0; n < 2; ++n) {
      float* const at = room.dscores + (key + i) * kLanes + n * kWidth;
      store(at, load(room.probabilities + (key + i) * kLanes + n * kWidth) * dp[i][n]);
    }
}

// to[i] += sum_lane a[i][lane] rows[lane], for Rows rows and Vectors vectors of the depth.
template <int Rows, int Vectors>
TRILEMMA_INLINE void add_product(const float* a, const float* rows, int64_t lanes, int64_t width, float* to) {
  Vector tile[Rows][Vectors] = {};
  multiply<Single, Rows, Vectors, false>(a, kLanes, rows, lanes, tile, width);
#pragma GCC unroll 8
  for (int i = 0; i < Rows; ++i)
#pragma GCC unroll 2
    for (int n = 0; n < Vectors; ++n) {
      float* const at = to + i * width + n * kWidth;
      store(at, load(at) + tile[i][n]);
    }
}

inline void add_products(const float* a, const float* rows, int64_t keys, int64_t lanes, int64_t width, float* to) {
  int64_t d = 0;
  for (; d + 2 * kWidth <= width; d += 2 * kWidth)
    tiles<1>(keys, [&](auto count, int64_t key) {
      add_product<count, 2>(a + key * kLanes, rows + d, lanes, width, to + key * width + d);
    });
  if (d < width)
    tiles<1>(keys, [&](auto count, int64_t key) {
      add_product<count, 1>(a + key * kLanes, rows + d, lanes, width, to + key * width + d);
    });
}

// Everything that a block of `count` queries adds to the gradients, but for the conversion of dq.
inline void add_block(const AttentionBackward& call, const Room& room, int64_t count) {
  for (int64_t first = 0; first < call.keys; first += kKeys) {
    const int64_t keys = least(call.keys - first, kKeys), at = first * room.width;
    tiles<1>(keys, [&](auto rows, int64_t key) {
      score_gradients<rows>(room, room.k + at, room.v + at, key, call.depth);
    });
    for (int64_t d = 0; d < call.depth; d += kRows) {
      Vector tile[kRows][2] = {};
      multiply<Single, kRows, 2, true>(room.k + at + d, room.width, room.dscores, keys, tile, kLanes);
      for (int i = 0; i < kRows; ++i)
        for (int n = 0; n < 2; ++n) {
          float* const to = room.dq + (d + i) * kLanes + n * kWidth;
          store(to, first ? load(to) + tile[i][n] : tile[i][n]);
        }
    }
    add_products(room.probabilities, room.dout_rows, keys, count, room.width, room.dv + at);
    add_products(room.dscores, room.query_rows, keys, count, room.width, room.dk + at);
  }
}

template <class T>
inline void run(const AttentionBackward& call, int64_t begin, int64_t end) {
  const int64_t depth = call.depth, width = (depth + kWidth - 1) / kWidth * kWidth;
  const int64_t lanes = depth * kLanes, rows = kLanes * width, all = call.keys * width, scores = kKeys * kLanes;
  float* next = thread_scratch(4 * all + 3 * lanes + 2 * rows + 2 * scores);
  const auto take = [&next](int64_t count) { return next += count, next - count; };
  Room room{};
  room.width = width;
  for (float** const panel : {&room.k, &room.v, &room.dk, &room.dv}) *panel = take(all);
  for (float** const panel : {&room.queries, &room.dout, &room.dq}) *panel = take(lanes);
  for (float** const panel : {&room.query_rows, &room.dout_rows}) *panel = take(rows);
  for (float** const panel : {&room.probabilities, &room.dscores}) *panel = take(scores);

  for (int64_t index = begin; index < end; ++index) {
    const auto head = [&](const Heads& x, int64_t token) {
      return start<T>(x, call.heads, index) + token * x.token;
    };
    pack_rows<T>(call.k, head(call.k, 0), call.keys, depth, width, room.k);
    pack_rows<T>(call.v, head(call.v, 0), call.keys, depth, width, room.v);
    for (int64_t i = 0; i < all; ++i) room.dk[i] = room.dv[i] = 0;
    for (int64_t first = 0; first < call.queries; first += kLanes) {
      const int64_t count = least(call.queries - first, kLanes);
      // delta, through the room that dq takes later.
      pack_lanes<T, Single>(call.out, head(call.out, first), count, depth, 1, room.dq);
      pack_lanes<T, Single>(call.dout, head(call.dout, first), count, depth, 1, room.dout);
      pack_lanes<T, Single>(call.q, head(call.q, first), count, depth, call.scale * kLog2E, room.queries);
      pack_rows<T>(call.dout, head(call.dout, first), count, depth, width, room.dout_rows);
      pack_rows<T>(call.q, head(call.q, first), count, depth, width, room.query_rows);
      for (int n = 0; n < 2; ++n) {
        room.delta[n] = Vector{};
        for (int64_t d = 0; d < depth; ++d) {
          const int64_t at = d * kLanes + n * kWidth;
          room.delta[n] = room.delta[n] + load(room.dq + at) * load(room.dout + at);
        }
        room.lse[n] = load_some(reinterpret_cast<const Float32*>(call.lse) + index * call.queries + first + n * kWidth,
                                count - n * kWidth) * kLog2E;
      }
      add_block(call, room, count);
      const Vector scale[2] = {broadcast(call.scale), broadcast(call.scale)};
      unpack_lanes<T>(call.dq, head(call.dq, first), count, depth, scale, room.dq);
    }
    unpack_rows<T>(call.dk, head(call.dk, 0), call.keys, depth, width, call.scale, room.dk);
    unpack_rows<T>(call.dv, head(call.dv, 0), call.keys, depth, width, 1, room.dv);
  }
}

}  // namespace

namespace trilemma::cpu::TRILEMMA_ISA {

void attention_backward_float32(const AttentionBackward& call, int64_t begin, int64_t end) {
  run<Float32>(call, begin, end);
}

void attention_backward_bfloat16(const AttentionBackward& call, int64_t begin, int64_t end) {
  run<BFloat16>(call, begin, end);
}

void attention_backward_float16(const AttentionBackward& call, int64_t begin, int64_t end) {
  run<Float16>(call, begin, end);
}

}  // namespace trilemma::cpu::TRILEMMA_ISA
