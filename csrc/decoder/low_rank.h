// SAM's two-way transformer for an image that many prompts ask about. Between two LayerNorms the image tokens change by
// p M, the weights of their attention to H T prompt rows times what those rows say: a matrix of low rank. So the tokens
//
//     x_0 = A_0,   x_n = LayerNorm(x_(n-1) + p_n M_n) = d_n A_n + W_n R_n + bias
//
// are never written. A_n depends on the image alone: what the layers ask of it (projections, the squares that LayerNorm
// needs) is prepared once. A prompt keeps one number d and the H T n weights W of each token, and the few rows R.
// For SAM and seven prompt tokens that is two fifths of the products of two_way.h, with the same error in float32.
#pragma once
#include "common/bf16.h"
#include "decoder/two_way.h"

namespace fastprompt {

// Where the numbers of a tile of image tokens stand, in rows of the tile's length. `up` rows of A_n W_up come last.
struct LowRankLayout {
  int64_t tokens, heads, width, depth, up;
  bool half;  // kept in bfloat16: half of the memory that a click reads, which is most of its time

  FP_INLINE int64_t inner() const { return heads * width; }
  // Rows of pass n: the question of the token before it (content and position), the products of its content with what
  // the heads of passes 1 to n say, its square, its products with the constants, and for the prompt's next question
  // key, key of the position, value (the value token by token).
  FP_INLINE int64_t question(int64_t n) const { return n == 0 ? 0 : n == 1 ? inner() : 2 * inner(); }
  FP_INLINE int64_t rows(int64_t n) const { return n == 0 ? 2 * inner() : question(n) + n * inner() + n + 3 * inner(); }
  FP_INLINE int64_t start(int64_t n) const {
    int64_t sum = 0;
    for (int64_t k = 0; k < n; ++k) sum += rows(k);
    return sum;
  }
  FP_INLINE int64_t prepared_rows() const { return start(depth + 1) + up; }

  // Rows R after pass n, and of the weights W: one for the bias of each LayerNorm but the last, then H T of each pass.
  FP_INLINE int64_t rank(int64_t n) const { return depth - 1 + n * heads * tokens; }
  FP_INLINE int64_t padded_rank(int64_t n) const { return (rank(n) + 15) / 16 * 16; }
  // What a prompt leaves for the mask head: bias W_up, R W_up, and for each tile d and W.
  FP_INLINE int64_t prompt_rows() const { return 1 + padded_rank(depth); }
};

struct LowRankImage {
  int64_t images, channels, pixels;
  LowRankLayout layout;
  const float *image, *position;  // (images, C, pixels), (C, pixels)
  const TwoWayLayer* layers;
  AttentionWeights final;
  const float* up_weight;  // (C, up): the linear map that comes after the transformer
  void* out;               // (images, tiles, prepared_rows, tile), float or bfloat16
  int threads;
};

void low_rank_prepare(const LowRankImage& args);

// two_way.prepared is that of low_rank_prepare, two_way.image_out takes low_rank_floats for each prompt.
struct LowRank {
  TwoWay two_way;
  LowRankLayout layout;
  const float* up_weight;
  const Bf16* engine;  // computes what the prompt asks of W and gathers from it; null: float32
  bool split;          // in three products
};

constexpr int64_t kLowRankGroup = 4;  // prompts that share a read of the image: its tile and their rooms fit into L2

int64_t low_rank_floats(const LowRankLayout& layout, int64_t pixels);
void low_rank(const LowRank& args);

FP_DECLARE_ISA(void, low_rank_prepare_tile, (const LowRankImage& args, int64_t image, int64_t tile))
FP_DECLARE_ISA(void, low_rank_group, (const LowRank& args, int64_t first, int64_t count, int threads))

}  // namespace fastprompt
