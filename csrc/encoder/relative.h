// Attention over a grid of tokens, in windows or among all, with decomposed relative position or none, and with pooled
// queries; bias and weights are never written to memory.
//
//   logit[q, k] = scale <q, k> + <q, Rh[y_q - y_k + h - 1]> + <q, Rw[x_q - x_k + w - 1]>
#pragma once
#include <cstdint>

#include "common/bf16.h"
#include "common/isa.h"

namespace fastprompt {

// Number i of a token: data[image * image_step + token * token_step + head * head_step + i].
struct TokenRows {
  const float* data;
  int64_t image_step, token_step, head_step;
};

struct RelativeAttention {
  int64_t images, tokens, heads;
  int64_t width;                          // of a head; with tables a multiple of 16
  int64_t height, columns;                // of the grid
  int64_t window_height, window_columns;  // that is cut into windows of this size, from its upper left corner; 0: not
  int64_t pool;  // queries are the largest of pool x pool, which divide grid and windows; no tables
  TokenRows query, key, value;
  const float *rel_h, *rel_w;  // (2 h - 1, width), (2 w - 1, width), h and w of the window, or of the grid; or null
  const int32_t* coordinates;  // (images or 1, tokens, 2): (y, x) inside the grid; null: row by row
  int64_t coordinate_step;     // from image to image: 0 or 2 tokens
  const float *pad_key, *pad_value;  // (heads, width): of the positions of a window that lie outside the grid
  float scale;
  float* out;           // (images, out_tokens(), heads, width)
  float* log_weight;    // (images, heads, out_tokens()): log of the sum of e^logit; or null
  Precision precision;  // of the two products with keys and values; the rest is float32, as the gradient
  int threads;

  FP_INLINE int64_t out_tokens() const { return pool > 1 ? (height / pool) * (columns / pool) : tokens; }
};

// What the forward call has made, `out` and `log_weight`, and a gradient of `out`; no windows.
struct RelativeGradient {
  RelativeAttention forward;
  const float* out_grad;                      // (images, tokens, heads, width)
  float *query_grad, *key_grad, *value_grad;  // the same
  float *rel_h_grad, *rel_w_grad;             // as the tables
};

void relative_attention(const RelativeAttention& args);
void relative_gradient(const RelativeGradient& args);

// ---------------------------------------------------------------- what the tasks of a call share

// Of a block. ViT-B's global block took 575, 553, 535, 527 ms with 64, 128, 256, 512; with AMX 201, 178, 207 ms with
// 64, 128, 256, with AVX-512 BF16 the same with 128 and 256.
constexpr int64_t kMaxKeys = 512, kMaxKeysBf16 = 128;

// Tokens side by side in a row of the grid that lie in one block.
struct Run {
  int64_t token, first, count;  // its first token: number in the tensor, and in the set
  int32_t y, x;
};

// Tokens that attend to each other.
struct TokenSet {
  int64_t image, count;
  int64_t block_keys;  // tokens of a block, a multiple of 16
  const Run* runs;
  const int64_t* block;     // (blocks + 1): the first run of every block
  int64_t height, columns;  // the part of the window that lies in the grid; more than the window: all of it
};

// The relative tables, turned and reversed, so that the bias of a row of keys is read forwards: column j of row d is
// R[2 size - 2 - j][d] log2(e), zero up to `step` columns.
struct RelativeTable {
  const float* data;
  int64_t size, step;
};

struct RelativeCall {
  RelativeAttention args;
  RelativeTable h, w;
  const Bf16* engine;  // null: float32
  FP_INLINE bool relative() const { return h.data; }
};

// `queries`: the set itself, or its pooled one.
FP_DECLARE_ISA(void, relative_queries,
               (const RelativeCall& call, const TokenSet& set, const TokenSet& queries, int64_t head, int part,
                int parts))

// rel_h and rel_w: this call's sums, added to.
FP_DECLARE_ISA(void, relative_head_gradient,
               (const RelativeCall& call, const RelativeGradient& args, const TokenSet& set, int64_t head, float* rel_h,
                float* rel_w))

}  // namespace fastprompt
