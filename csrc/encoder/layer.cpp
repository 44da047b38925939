#include "encoder/layer.h"

#include <algorithm>

#include "common/parallel.h"

namespace fastprompt {
namespace {

std::size_t floats(std::initializer_list<Matrix*> matrices, bool three) {
  std::size_t numbers = 0;
  for (const Matrix* m : matrices) numbers += m->rows * round_to_depth(m->depth) * (three ? 2 : 1);
  return numbers / 2;
}

// Rows [16 block, 16 block + 16) in units, with zeros behind the last column.
void pack(const Matrix& m, int64_t block, const Bf16& engine, uint16_t* high, uint16_t* low) {
  const int64_t depth = round_to_depth(m.depth);
  const Bf16Layout units = in_units(depth);
  for (int64_t row = 0; row < kBf16Rows; ++row)
    for (int64_t k = 0; k < depth; k += kBf16Depth) {
      const int64_t to = block * units.down + k / kBf16Depth * units.along + row * units.row;
      const float* from = m.data + (block * kBf16Rows + row) * m.depth + k;
      float filled[kBf16Depth] = {};
      if (m.depth - k < kBf16Depth) {
        std::copy(from, from + m.depth - k, filled);
        from = filled;
      }
      engine.pack_in_order(from, kBf16Depth, high + to, low ? low + to : nullptr);
    }
}

template <class Args, class Body>
void by_tiles(const Args& args, const Bf16* engine, int threads, const Body& body) {
  const int64_t tiles = (args.tokens + kTokens - 1) / kTokens;
  // AMX is done with a tile before the next weights are there (mlp: 78 ms, 65 with four); float32 takes its time.
  const int64_t group = engine ? std::clamp<int64_t>(tiles / threads, 1, kGroup) : 1;
  parallel_for(threads, (tiles + group - 1) / group,
               [&](int64_t n) { body(args, engine, n * group, std::min(tiles, (n + 1) * group)); });
}

}  // namespace

Weights::Weights(std::initializer_list<Matrix*> matrices, Precision precision, int threads)
    : engine_(bf16(precision)), memory_(engine_ ? floats(matrices, precision == Precision::high) : 0) {
  if (!engine_) return;
  auto* to = reinterpret_cast<uint16_t*>(memory_.data());
  for (Matrix* m : matrices) {
    const int64_t count = m->rows * round_to_depth(m->depth);
    uint16_t *high = to, *low = precision == Precision::high ? to + count : nullptr;
    parallel_for(threads, m->rows / kBf16Rows, [&](int64_t block) { pack(*m, block, *engine_, high, low); });
    m->high = high, m->low = low;
    to += count * (low ? 2 : 1);
  }
}

void linear_part(const NormalisedLinear& a, const Bf16* engine, int threads) {
  by_tiles(a, engine, threads, FP_DISPATCH(normalised_linear_tiles));
}

void mlp_part(const ResidualMlp& a, const Bf16* engine, int threads) {
  by_tiles(a, engine, threads, FP_DISPATCH(residual_mlp_tiles));
}

void normalised_linear(NormalisedLinear a, Precision precision, int threads) {
  const Weights weights({&a.linear}, precision, threads);
  prefer_huge_pages(a.out, a.tokens * a.linear.rows * sizeof(float));
  linear_part(a, weights.engine(), threads);
}

void residual_mlp(ResidualMlp a, Precision precision, int threads) {
  const Weights weights({&a.project, &a.mlp1, &a.mlp2}, precision, threads);
  prefer_huge_pages(a.out, a.tokens * a.project.rows * sizeof(float));
  mlp_part(a, weights.engine(), threads);
}

}  // namespace fastprompt
