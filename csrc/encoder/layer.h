// The linear layers of a transformer layer on many tokens, with LayerNorm, activation and residuals in one pass:
//
//   before the attention   out = W LN(x) + b, or W x + b
//   behind it              y = x + Wo a + bo,  out = y + W2 act(W1 LN(y) + b1) + b2
//
// A tile of 64 tokens, or a few of them, stays in the cache from end to end. In a tile the tokens are contiguous, a row
// is a channel, so that weights are read as torch stores them and the inner numbers of the MLP are the next product's
// right side.
#pragma once
#include <cstdint>
#include <initializer_list>

#include "common/bf16.h"
#include "common/isa.h"
#include "common/layers.h"
#include "common/scratch.h"

namespace fastprompt {

// (rows, depth), and its parts in bfloat16 where the call computes in it.
struct Matrix {
  const float* data;
  int64_t rows, depth;
  const float* bias;  // (rows)
  const uint16_t *high, *low;
};

struct NormalisedLinear {
  int64_t tokens;
  const float* x;  // (tokens, channels), channels = linear.depth
  LayerNorm norm;  // weight null: none
  Matrix linear;
  float* out;  // (tokens, linear.rows)
};

enum class Activation : int { gelu = 0, relu = 1 };

struct ResidualMlp {
  int64_t tokens;
  Activation activation;
  const float *x, *attended;  // (tokens, channels), (tokens, project.depth)
  Matrix project;             // (channels, …)
  LayerNorm norm;
  Matrix mlp1, mlp2;  // (hidden, channels), (channels, hidden)
  float* out;         // (tokens, channels)
};

constexpr int64_t kTokens = kBf16Columns;  // of a tile
constexpr int64_t kGroup = 4;              // tiles that share a read of the weights
constexpr int64_t kChannelUnit = 16;       // of which all sizes are multiples

void normalised_linear(NormalisedLinear args, Precision precision, int threads);
void residual_mlp(ResidualMlp args, Precision precision, int threads);

// Weights of a call in bfloat16, where it computes in it: made anew at every call, 0.2 % of the time of ViT-B's layer,
// and nothing that could be out of date. The matrices refer to it.
class Weights {
 public:
  Weights(std::initializer_list<Matrix*> matrices, Precision precision, int threads);
  const Bf16* engine() const { return engine_; }

 private:
  const Bf16* engine_;
  Scratch memory_;
};

// The same with weights that are ready, for a part of the tokens.
void linear_part(const NormalisedLinear& args, const Bf16* engine, int threads);
void mlp_part(const ResidualMlp& args, const Bf16* engine, int threads);

// Tiles [begin, end), at most kGroup.
FP_DECLARE_ISA(void, normalised_linear_tiles,
               (const NormalisedLinear& args, const Bf16* engine, int64_t begin, int64_t end))
FP_DECLARE_ISA(void, residual_mlp_tiles, (const ResidualMlp& args, const Bf16* engine, int64_t begin, int64_t end))

}  // namespace fastprompt
