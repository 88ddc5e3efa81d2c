// Attention for CUDA. A block takes a tile of the queries of a head and goes over tiles of the keys, its softmax corrected
// as it goes. Tensors are read where they lie, in either order of their memory. Half types are multiplied by tensor
// cores, probabilities rounded to them; float32 is multiplied as float32.

#include "attention.cuh"
#include "matrix.cuh"

namespace {

// Half types: four warps of sixteen queries, and as many keys.
constexpr int kWarps = 4, kTokens = 16 * kWarps, kPad = 8;

// A tile of kTokens tokens, in the order of its tensor's memory. The pad lets eight lines be read without conflict.
template <class T, int kDepth>
struct Tile {
  static constexpr int kAlong = kDepth + kPad, kAcross = kTokens + kPad;
  static constexpr int kElements = kDepth * kTokens + kPad * (kDepth > kTokens ? kDepth : kTokens);

  T* data;
  bool across;

  __device__ __forceinline__ T* at(int token, int depth) const {
    return data + (across ? depth * kAcross + token : token * kAlong + depth);
  }

  __device__ __forceinline__ void fill(const Head<T>& head, int64_t first, int64_t tokens, int depth, bool words) {
    across = head.across();
    const int count = least(tokens - first, kTokens);
    const T* from = head.data + first * head.token;
    if (across)
      copy_in<kDepth, kTokens, kAcross>(data, from, head.depth, depth, count, words);
    else
      copy_in<kTokens, kDepth, kAlong>(data, from, head.token, count, depth, words);
  }

  __device__ __forceinline__ void empty(const Head<T>& head, int64_t first, int64_t tokens, int depth, bool words) {
    const int count = least(tokens - first, kTokens);
    T* to = head.data + first * head.token;
    if (across)
      copy_out<kDepth, kTokens, kAcross>(data, to, head.depth, depth, count, words);
    else
      copy_out<kTokens, kDepth, kAlong>(data, to, head.token, count, depth, words);
  }

  // Sixteen tokens by sixteen of depth, as A of scores, as B of scores (tokens are its columns) and as B of results
  // (tokens are its rows). Of B, the registers of columns 0 .. 7 come before those of 8 .. 15.
  __device__ __forceinline__ void queries(uint32_t (&to)[4], int token, int depth) const {
    load<false>(to, token + lane() / 8 % 2 * 8, depth + lane() / 16 * 8);
  }
  __device__ __forceinline__ void keys(uint32_t (&to)[4], int token, int depth) const {
    load<false>(to, token + lane() / 16 * 8, depth + lane() / 8 % 2 * 8);
  }
  __device__ __forceinline__ void values(uint32_t (&to)[4], int token, int depth) const {
    load<true>(to, token + lane() / 8 % 2 * 8, depth + lane() / 16 * 8);
  }

 private:
  __device__ __forceinline__ static int lane() { return static_cast<int>(threadIdx.x % 32); }

  // Eight by eight from (token, depth) on, this lane giving one of its eight lines. Pairs of depth, or of tokens.
  template <bool kPairTokens>
  __device__ __forceinline__ void load(uint32_t (&to)[4], int token, int depth) const {
    const int line = lane() % 8;
    if (across)
      load_matrices<!kPairTokens>(to, at(token, depth + line));
    else
      load_matrices<kPairTokens>(to, at(token + line, depth));
  }
};

// Blocks that share a multiprocessor: what is asked for leaves each thread the registers it needs.
template <int kDepth>
constexpr int kBlocks = kDepth < 48 ? 4 : kDepth <= 64 ? 3 : 2;

template <class T, int kDepth>
__global__ void __launch_bounds__(32 * kWarps, kBlocks<kDepth>) attention_kernel(const Attention call, const Words words) {
  using DepthTile = Tile<T, kDepth>;
  constexpr int kSteps = kDepth / 16, kKeySteps = kTokens / 16;
  __shared__ uint4 memory[2 * DepthTile::kElements * sizeof(T) / sizeof(uint4)];
  DepthTile keys{reinterpret_cast<T*>(memory), false}, values{keys.data + DepthTile::kElements, false};

  const Share share = share_of(call, kTokens);
  const int depth = static_cast<int>(call.depth);
  const int row = static_cast<int>(threadIdx.x / 32) * 16, g = static_cast<int>(threadIdx.x % 32 / 4),
            t = static_cast<int>(threadIdx.x % 4);
  const bool busy = share.first_query + row < call.queries;  // the same for all of a warp

  uint32_t q[kSteps][4];
  keys.fill(Head<T>(call.q, share.sample, share.head), share.first_query, call.queries, depth, words.q);
  __syncthreads();
#pragma unroll
  for (int step = 0; step < kSteps; ++step) keys.queries(q[step], row, 16 * step);

  const Head<T> k(call.k, share.sample, share.head), v(call.v, share.sample, share.head);
  const float scale = call.scale * kLog2E;
  Softmax softmax[2];  // of rows g and g + 8
  float out[2 * kSteps][4] = {};
#pragma unroll 1
  for (int64_t first = 0; first < call.keys; first += kTokens) {
    __syncthreads();  // what lay there has been read
    keys.fill(k, first, call.keys, depth, words.k);
    values.fill(v, first, call.keys, depth, words.v);
    __syncthreads();
    if (!busy) continue;
    const int count = least(call.keys - first, kTokens);

    float scores[2 * kKeySteps][4] = {};
#pragma unroll
    for (int some = 0; some < kKeySteps; ++some) {
      if (16 * some < count) {
#pragma unroll
        for (int step = 0; step < kSteps; ++step) {
          uint32_t b[4];
          keys.keys(b, 16 * some, 16 * step);
          multiply_add<T>(scores[2 * some], q[step], b[0], b[1]);
          multiply_add<T>(scores[2 * some + 1], q[step], b[2], b[3]);
        }
      }
    }
    float largest[2] = {-INFINITY, -INFINITY};
#pragma unroll
    for (int n = 0; n < 2 * kKeySteps; ++n) {
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        scores[n][i] = 8 * n + 2 * t + i % 2 < count ? scores[n][i] * scale : -INFINITY;
        largest[i / 2] = fmaxf(largest[i / 2], scores[n][i]);
      }
    }
    float base[2], shrink[2];
#pragma unroll
    for (int r = 0; r < 2; ++r) base[r] = softmax[r].begin(largest_of<4>(largest[r]), &shrink[r]);
#pragma unroll
    for (int n = 0; n < 2 * kKeySteps; ++n) {
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        scores[n][i] = exp2f(scores[n][i] - base[i / 2]);
        softmax[i / 2].sum += scores[n][i];
      }
    }
#pragma unroll
    for (int n = 0; n < 2 * kSteps; ++n) {
#pragma unroll
      for (int i = 0; i < 4; ++i) out[n][i] *= shrink[i / 2];
    }
#pragma unroll
    for (int some = 0; some < kKeySteps; ++some) {
      if (16 * some < count) {
        const float(&low)[4] = scores[2 * some], (&high)[4] = scores[2 * some + 1];
        const uint32_t p[4] = {pair_of<T>(low[0], low[1]), pair_of<T>(low[2], low[3]), pair_of<T>(high[0], high[1]),
                               pair_of<T>(high[2], high[3])};
#pragma unroll
        for (int step = 0; step < kSteps; ++step) {
          uint32_t b[4];
          values.values(b, 16 * some, 16 * step);
          multiply_add<T>(out[2 * step], p, b[0], b[1]);
          multiply_add<T>(out[2 * step + 1], p, b[2], b[3]);
        }
      }
    }
  }

  // By way of a tile, so that it is written in the order of its memory.
  __syncthreads();
  const Head<T> result(call.out, share.sample, share.head);
  keys.across = result.across();
  if (busy) {
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      const float whole = sum_of<4>(softmax[r].sum), inverse = softmax[r].inverse(whole);
      const int token = row + g + 8 * r;
#pragma unroll
      for (int n = 0; n < 2 * kSteps; ++n) {
#pragma unroll
        for (int i = 0; i < 2; ++i) *keys.at(token, 8 * n + 2 * t + i) = T::round(out[n][2 * r + i] * inverse);
      }
      const int64_t query = share.first_query + token;
      if (t == 0 && query < call.queries)
        call.lse[(share.sample * call.heads + share.head) * call.queries + query] = softmax[r].logsumexp(whole);
    }
  }
  __syncthreads();
  keys.empty(result, share.first_query, call.queries, depth, words.out);
}

// Float32: two warps; eight lanes share four queries, and each of them has every eighth key and number of the result.
constexpr int kFloatTokens = 32, kFloatThreads = 64, kLanes = 8, kRows = kFloatTokens / (kFloatThreads / kLanes);

// Tokens in shared memory one after the other, however they lie in the tensor.
template <int kDepth>
struct FloatTile {
  static constexpr int kPitch = kDepth + 4;

  Float32* data;

  __device__ __forceinline__ void fill(const Head<Float32>& head, int64_t first, int64_t tokens, int depth, bool words) {
    const int count = least(tokens - first, kFloatTokens);
    const Float32* from = head.data + first * head.token;
    if (!head.across()) return copy_in<kFloatTokens, kDepth, kPitch>(data, from, head.token, count, depth, words);
    for (int i = static_cast<int>(threadIdx.x); i < kDepth * kFloatTokens; i += kFloatThreads) {
      const int token = i % kFloatTokens, d = i / kFloatTokens;
      data[token * kPitch + d] = token < count && d < depth ? from[d * head.depth + token] : Float32{};
    }
  }

  __device__ __forceinline__ void four(int token, int depth, float (&values)[4]) const {
    Packed<Float32, 4> packed;
    packed.read(data, token * kPitch + depth);
    packed.unpack(values);
  }
};

template <int kDepth>
__global__ void __launch_bounds__(kFloatThreads, 4) float_attention_kernel(const Attention call, const Words words) {
  using Tokens = FloatTile<kDepth>;
  constexpr int kEach = kFloatTokens / kLanes;
  __shared__ uint4 memory[2 * kFloatTokens * Tokens::kPitch * sizeof(float) / sizeof(uint4)];
  Tokens queries{reinterpret_cast<Float32*>(memory)}, others{queries.data + kFloatTokens * Tokens::kPitch};

  const Share share = share_of(call, kFloatTokens);
  const int depth = static_cast<int>(call.depth);
  const int lane = static_cast<int>(threadIdx.x % kLanes), row = static_cast<int>(threadIdx.x / kLanes) * kRows;
  const Head<Float32> k(call.k, share.sample, share.head), v(call.v, share.sample, share.head);
  queries.fill(Head<Float32>(call.q, share.sample, share.head), share.first_query, call.queries, depth, words.q);

  const float scale = call.scale * kLog2E;
  Softmax softmax[kRows];
  float out[kRows][kDepth / kLanes] = {};
#pragma unroll 1
  for (int64_t first = 0; first < call.keys; first += kFloatTokens) {
    const int count = least(call.keys - first, kFloatTokens);
    __syncthreads();
    others.fill(k, first, call.keys, depth, words.k);
    __syncthreads();
    float scores[kRows][kEach] = {};
#pragma unroll 2
    for (int d = 0; d < kDepth; d += 4) {
      float key[kEach][4];
#pragma unroll
      for (int j = 0; j < kEach; ++j) others.four(lane + kLanes * j, d, key[j]);
#pragma unroll
      for (int r = 0; r < kRows; ++r) {
        float query[4];
        queries.four(row + r, d, query);
#pragma unroll
        for (int j = 0; j < kEach; ++j) {
#pragma unroll
          for (int i = 0; i < 4; ++i) scores[r][j] += query[i] * key[j][i];
        }
      }
    }
#pragma unroll
    for (int r = 0; r < kRows; ++r) {
      float largest = -INFINITY, shrink;
#pragma unroll
      for (int j = 0; j < kEach; ++j) {
        scores[r][j] = lane + kLanes * j < count ? scores[r][j] * scale : -INFINITY;
        largest = fmaxf(largest, scores[r][j]);
      }
      const float base = softmax[r].begin(largest_of<kLanes>(largest), &shrink);
#pragma unroll
      for (int j = 0; j < kEach; ++j) {
        scores[r][j] = exp2f(scores[r][j] - base);
        softmax[r].sum += scores[r][j];
      }
#pragma unroll
      for (int i = 0; i < kDepth / kLanes; ++i) out[r][i] *= shrink;
    }
    __syncthreads();
    others.fill(v, first, call.keys, depth, words.v);
    __syncthreads();
#pragma unroll
    for (int j = 0; j < kEach; ++j) {
#pragma unroll 2
      for (int from = 0; from < kLanes; ++from) {
        float p[kRows];
#pragma unroll
        for (int r = 0; r < kRows; ++r)
          p[r] = __shfl_sync(kWholeWarp, scores[r][j], static_cast<int>(threadIdx.x % 32) / kLanes * kLanes + from);
        const Float32* value = others.data + (kLanes * j + from) * Tokens::kPitch + lane;
#pragma unroll
        for (int i = 0; i < kDepth / kLanes; ++i) {
#pragma unroll
          for (int r = 0; r < kRows; ++r) out[r][i] += p[r] * Float32::load(value[kLanes * i]);
        }
      }
    }
  }

  const Head<Float32> result(call.out, share.sample, share.head);
#pragma unroll
  for (int r = 0; r < kRows; ++r) {
    const float whole = sum_of<kLanes>(softmax[r].sum), inverse = softmax[r].inverse(whole);
    const int64_t query = share.first_query + row + r;
    if (query >= call.queries) continue;
    Float32* to = result.data + query * result.token;
#pragma unroll
    for (int i = 0; i < kDepth / kLanes; ++i)
      if (lane + kLanes * i < depth) to[(lane + kLanes * i) * result.depth] = Float32::round(out[r][i] * inverse);
    if (lane == 0)
      call.lse[(share.sample * call.heads + share.head) * call.queries + query] = softmax[r].logsumexp(whole);
  }
}

template <class T>
bool in_words(const Heads& heads) {
  const int64_t across = heads.depth == 1 ? heads.token : heads.depth;
  return aligned(heads.data) && (heads.batch | heads.head | across) % kWide<T> == 0;
}

template <class T, int kDepth>
cudaError_t run(const Attention& call, cudaStream_t stream) {
  constexpr int kQueries = std::is_same_v<T, Float32> ? kFloatTokens : kTokens;
  const int64_t blocks = call.batch * call.heads * ((call.queries + kQueries - 1) / kQueries);
  if (blocks > 0x7FFFFFFF) return cudaErrorInvalidConfiguration;
  const dim3 grid(static_cast<unsigned>(blocks));
  const Words words{in_words<T>(call.q), in_words<T>(call.k), in_words<T>(call.v), in_words<T>(call.out)};
  if constexpr (std::is_same_v<T, Float32>)
    return launch(float_attention_kernel<kDepth>, grid, kFloatThreads, stream, call, words);
  else
    return launch(attention_kernel<T, kDepth>, grid, 32 * kWarps, stream, call, words);
}

}  // namespace

cudaError_t trilemma::cuda::attention(const Attention& call, Storage storage, cudaStream_t stream) {
  if (call.batch * call.heads * call.queries == 0) return cudaSuccess;
  return with_storage(storage, [&](auto type) {
    using T = decltype(type);
    if (call.depth <= 16) return run<T, 16>(call, stream);
    if (call.depth <= 32) return run<T, 32>(call, stream);
    if (call.depth <= 48) return run<T, 48>(call, stream);
    if (call.depth <= 64) return run<T, 64>(call, stream);
    if (call.depth <= 96) return run<T, 96>(call, stream);
    return call.depth <= 128 ? run<T, 128>(call, stream) : cudaErrorInvalidValue;
  });
}
