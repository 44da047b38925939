// A whole layer of an encoder on a grid of tokens, in windows or among all, with pooled queries: Hiera's block.
//
//   y = r + Wo attention(Wqkv LN(x) + b) + bo,  out = y + W2 act(W1 LN(y) + b1) + b2
//
// with r = x, or the largest of pool x pool places of W LN(x) + b. Some rows of windows go from end to end before the
// next ones: what is between stays in the cache, and no memory is touched for the first time but that of `out` (a page
// of it costs up to 3 us, 150 MB of queries, keys and values as much as the products that make them).
#pragma once
#include "encoder/layer.h"

namespace fastprompt {

struct GridLayer {
  int64_t images, height, columns;
  int64_t window, pool, heads;  // window 0: all tokens attend to each other
  const float* x;               // (images, height, columns, channels)
  LayerNorm norm1;
  Matrix qkv;       // (3 heads width, channels)
  Matrix residual;  // (outputs, channels); no data: x is it, and pool is 1
  Matrix project;   // (outputs, heads width)
  LayerNorm norm2;
  Matrix mlp1, mlp2;
  Activation activation;
  float* out;  // (images, height / pool, columns / pool, outputs)
  Precision precision;
  int threads;
};

void grid_layer(GridLayer args);

// out (rows / pool, columns / pool, channels): the largest of pool x pool places of x (rows, columns, channels).
FP_DECLARE_ISA(void, pool_rows,
               (const float* x, int64_t first, int64_t last, int64_t columns, int64_t channels, int64_t pool,
                float* out))

}  // namespace fastprompt
