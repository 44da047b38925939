#pragma once
#include <cstdint>

namespace fastprompt {

enum class DType : int { f32 = 0, f16 = 1, bf16 = 2, u8 = 3 };

// Somebody's array as (batch, channel, z, y, x); strides in elements, of any sign, 0 for a broadcast axis.
struct View {
  const void* data = nullptr;  // element (0, 0, 0, 0, 0)
  DType dtype = DType::f32;
  int64_t stride[5] = {0, 0, 0, 0, 0};
};

}  // namespace fastprompt
