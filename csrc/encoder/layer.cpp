#include "encoder/layer.h"

#include <algorithm>
#include <initializer_list>

#include "common/parallel.h"
#include "common/scratch.h"

namespace fastprompt {
namespace {

// The weights of a call in bfloat16, made anew at every call: 0.2 % of the time of ViT-B's layer, and nothing that
// could be out of date.
class Weights {
 public:
  Weights(std::initializer_list<Matrix*> matrices, const Bf16* engine, bool three, int threads)
      : memory_(engine ? floats(matrices, three) : 0) {
    auto* to = reinterpret_cast<uint16_t*>(memory_.data());
    for (Matrix* m : matrices) {
      if (!engine) continue;
      const int64_t depth = round_to_depth(m->depth), count = m->rows * depth;
      uint16_t *high = to, *low = three ? to + count : nullptr;
      parallel_for(threads, m->rows / kBf16Rows, [&](int64_t block) {
        const Bf16Layout units = in_units(depth);
        for (int64_t row = 0; row < kBf16Rows; ++row)
          for (int64_t k = 0; k < depth; k += kBf16Depth) {
            const int64_t to = block * units.down + k / kBf16Depth * units.along + row * units.row;
            const float* from = m->data + (block * kBf16Rows + row) * m->depth + k;
            float filled[kBf16Depth] = {};  // with zeros behind the last
            if (m->depth - k < kBf16Depth) from = std::copy(from, from + m->depth - k, filled) - (m->depth - k);
            engine->pack_in_order(from, kBf16Depth, high + to, low ? low + to : nullptr);
          }
      });
      m->high = high, m->low = low;
      to += count * (three ? 2 : 1);
    }
  }

 private:
  static std::size_t floats(std::initializer_list<Matrix*> matrices, bool three) {
    std::size_t numbers = 0;
    for (const Matrix* m : matrices) numbers += m->rows * round_to_depth(m->depth) * (three ? 2 : 1);
    return numbers / 2;
  }

  Scratch memory_;
};

template <class Args, class Body>
void by_tiles(const Args& args, std::initializer_list<Matrix*> matrices, Precision precision, int threads,
              const Body& body) {
  const Bf16* engine = bf16(precision);
  const Weights weights(matrices, engine, precision == Precision::high, threads);
  prefer_huge_pages(args.out, args.tokens * matrices.end()[-1]->rows * sizeof(float));
  const int64_t tiles = (args.tokens + kTokens - 1) / kTokens;
  // AMX is done with a tile before the next weights are there (mlp: 78 ms, 65 with four); float32 takes its time.
  const int64_t group = engine ? std::clamp<int64_t>(tiles / threads, 1, kGroup) : 1;
  parallel_for(threads, (tiles + group - 1) / group,
               [&](int64_t n) { body(engine, n * group, std::min(tiles, (n + 1) * group)); });
}

}  // namespace

void normalised_linear(NormalisedLinear a, Precision precision, int threads) {
  by_tiles(a, {&a.linear}, precision, threads, [&](const Bf16* engine, int64_t begin, int64_t end) {
    FP_DISPATCH(normalised_linear_tiles)(a, engine, begin, end);
  });
}

void residual_mlp(ResidualMlp a, Precision precision, int threads) {
  by_tiles(a, {&a.project, &a.mlp1, &a.mlp2}, precision, threads, [&](const Bf16* engine, int64_t begin, int64_t end) {
    FP_DISPATCH(residual_mlp_tiles)(a, engine, begin, end);
  });
}

}  // namespace fastprompt
