// Means of a feature map over masks: out[m][c] = sum over n of weight[m][n] feature[c][n] / (sum of weight[m] + eps).
//
// Enlarging the features to the mask, then summing, is summing with weights on the features' own grid: enlarging is
// F -> Ay F Ax^T, so sum m (Ay F Ax^T) = <Ay^T m Ax, F>. The mask is splatted, nothing is enlarged.
#pragma once
#include <cstdint>

#include "common/isa.h"

namespace fastprompt {

enum class PoolResize : int { features, mask, average };

struct MaskedPool {
  int64_t batch, channels, height, width;  // of the features
  int64_t masks, mask_height, mask_width;
  const float* features;  // (batch, channels, height, width)
  const void* mask;       // (batch, masks, mask_height, mask_width), float32 or uint8
  bool bytes;             // it is uint8
  PoolResize resize;
  bool align_corners, background;  // background: 1 - mask of every mask besides, behind all masks
  bool hard;                       // weights over `threshold` become 1, others 0
  float threshold, eps, empty;     // empty: the mean where the sum of the weights is 0
  float* out;                      // (batch, rows, channels)
  int threads;

  FP_INLINE int64_t rows() const { return background ? 2 * masks : masks; }
};

void masked_pool(const MaskedPool& args);

// ---------------------------------------------------------------- what the tasks of a call share

constexpr int64_t kPoolUnit = 16;  // floats: rows are padded to whole vectors of any instruction set

// Position x of the longer axis and the two of the shorter one between which it lies: at[x] and the next one.
struct PoolAxis {
  const int32_t* at;
  const float *low, *high;  // weights of at[x] and of at[x] + 1; high is 0 where there is no next one
};

// The same along the columns of a splat, seen from the features: column a is the sum over its mask columns, from
// first[a] on, of weight[a * step + k]; `count` of them, a multiple of kPoolUnit.
struct PoolHats {
  const int32_t *first, *count;
  const float* weight;
  int64_t step;
};

struct PoolCall {
  MaskedPool args;
  PoolAxis rows, columns;
  const int32_t* row_begin;  // splat: the mask rows with at == a are [row_begin[a], row_begin[a + 1])
  PoolHats hats;
  int64_t pitch;  // of a row of weights
};

// Weights of a group of masks with the vectors left out in which all are 0.
struct PoolGroup {
  int32_t* live;  // first pixels of the vectors that are left, ascending
  int64_t count;
  float* weight;  // (count, masks, vector)
  float* area;    // (masks)
};

constexpr int64_t kPoolGroup = 6;  // masks that share a read of the features, at most

// Weights of a mask on the rows [first, last) of the features; mask -1: of a mask of ones.
FP_DECLARE_ISA(void, pool_weights, (const PoolCall& call, int64_t mask, int64_t first, int64_t last, float* weights))
// `rows` weights, `pitch` apart, as a group.
FP_DECLARE_ISA(void, pool_group, (const PoolCall& call, const float* weights, int64_t rows, PoolGroup* group))
FP_DECLARE_ISA(void, pool_channels,
               (const PoolCall& call, const PoolGroup& group, int64_t rows, const float* features, int64_t first,
                int64_t last, float* out))

}  // namespace fastprompt
