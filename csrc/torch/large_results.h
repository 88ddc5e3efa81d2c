// Malloc gives large results back to the system and maps them anew at the next call; the kernel's work on their
// fresh pages takes longer than ours. A few blocks are kept instead, as torch does for CUDA, in large pages.

#pragma once

#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>

#include <cstdlib>
#include <mutex>
#include <new>
#include <vector>

#ifdef __linux__
#include <sys/mman.h>
#endif

class KeptBlocks {
 public:
  static constexpr size_t kPage = 2 << 20;
  static constexpr size_t kMost = 256 << 20;  // bytes that lie unused, at most

  void* take(size_t bytes) {
    {
      const std::lock_guard<std::mutex> lock(mutex_);
      for (auto block = blocks_.begin(); block != blocks_.end(); ++block)
        if (block->bytes == bytes) {
          void* data = block->data;
          unused_ -= bytes;
          blocks_.erase(block);
          return data;
        }
    }
    void* data = std::aligned_alloc(kPage, bytes);
    if (!data) throw std::bad_alloc();
#ifdef MADV_HUGEPAGE
    static_cast<void>(madvise(data, bytes, MADV_HUGEPAGE));  // where it is refused, small pages do
#endif
    return data;
  }

  // The oldest make room.
  void give_back(void* data, size_t bytes) {
    const std::lock_guard<std::mutex> lock(mutex_);
    blocks_.push_back({data, bytes});
    unused_ += bytes;
    while (unused_ > kMost) {
      std::free(blocks_.front().data);
      unused_ -= blocks_.front().bytes;
      blocks_.erase(blocks_.begin());
    }
  }

 private:
  struct Block {
    void* data;
    size_t bytes;
  };
  std::mutex mutex_;
  std::vector<Block> blocks_;
  size_t unused_ = 0;
};

// Never destroyed: tensors may outlive everything else.
inline KeptBlocks& kept_blocks() {
  static auto* const blocks = new KeptBlocks;
  return *blocks;
}

constexpr size_t kLargeResult = 4 << 20;

// A dense CPU tensor of these sizes and strides, as `like` in dtype, with undefined content.
inline torch::stable::Tensor large_result(const torch::stable::Tensor& like, torch::headeronly::IntHeaderOnlyArrayRef sizes,
                                          torch::headeronly::IntHeaderOnlyArrayRef strides, size_t bytes) {
  bytes = (bytes + KeptBlocks::kPage - 1) / KeptBlocks::kPage * KeptBlocks::kPage;
  void* data = kept_blocks().take(bytes);
  return torch::stable::from_blob(data, sizes, strides, torch::stable::Device(torch::headeronly::DeviceType::CPU),
                                  like.scalar_type(), [bytes](void* p) { kept_blocks().give_back(p, bytes); });
}

// Bytes of a result that the second caches would not keep for whoever reads it next.
constexpr int64_t kStreamed = 8 << 20;
