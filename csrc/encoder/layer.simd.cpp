#include "encoder/layer.h"

#include "common/gemm.h"
#include "common/interrupt.h"
#include "common/layer_norm.h"
#include "common/scratch.h"

namespace fastprompt {
namespace FP_ISA {
namespace {

// Rows of a weight that are multiplied with a tile at a time: with 768 channels they and the tile fit the second-level
// cache, and whole blocks of registers: see kWideRows.
constexpr int64_t kBlock = 48;
constexpr int64_t kVectors = kTokens / N;
// Numbers that are summed up in a row in float32: the error of a sum grows with the root of its length.
constexpr int64_t kDepth = 256;

// The right side of products: (depth, 64) numbers, packed where an engine multiplies.
class Right {
 public:
  Right() = default;
  static int64_t floats(const Bf16* engine, int64_t depth) { return engine ? whole(depth) * kTokens : 0; }
  Right(const Bf16* engine, bool low, int64_t depth, float* memory)
      : engine_(engine),
        high_(reinterpret_cast<uint16_t*>(memory)),
        low_(low ? high_ + whole(depth) * kTokens : nullptr) {}

  void set(const float* numbers, int64_t depth) {
    numbers_ = numbers, depth_ = depth;
    if (engine_) engine_->pack_right(numbers, kTokens, depth, whole(depth), high_, low_);
  }

  // out (rows, 64) (+)= the part [row, row + rows) x [column, column + depth) of a weight, times this.
  template <bool Add>
  void multiply(const Matrix& w, int64_t row, int64_t rows, int64_t column, float* out) const {
    if (engine_) {
      const Bf16Layout units = in_units(whole(w.depth));
      const int64_t at = row / kBf16Rows * units.down + column / kBf16Depth * units.along;
      const Bf16Operand left{w.high + at, w.low ? w.low + at : nullptr};
      return ::fastprompt::multiply(*engine_, left, units, {high_, low_}, out, kTokens, rows, whole(depth_), Add);
    }
    const int64_t at = row * w.depth + column;
    for (int64_t k = 0; k < depth_; k += kDepth) {
      const Left left{w.data + at + k, w.depth, 1};
      const int64_t depth = depth_ - k < kDepth ? depth_ - k : kDepth;
      k || Add ? gemm<true>(left, numbers_ + k * kTokens, kTokens, out, kTokens, rows, kVectors, depth)
               : gemm<false>(left, numbers_ + k * kTokens, kTokens, out, kTokens, rows, kVectors, depth);
    }
  }

 private:
  static int64_t whole(int64_t depth) { return (depth + kBf16Depth - 1) / kBf16Depth * kBf16Depth; }

  const Bf16* engine_ = nullptr;
  const float* numbers_ = nullptr;
  int64_t depth_ = 0;
  uint16_t *high_ = nullptr, *low_ = nullptr;
};

// The right sides of the tiles that are worked on together: a block of a weight is read once for all of them.
class Group {
 public:
  Right& add(const Right& right) { return rights_[size_++] = right; }
  Right& operator[](int64_t n) { return rights_[n]; }

 private:
  Right rights_[kGroup];
  int64_t size_ = 0;
};

// A tile (channels, 64) of the tokens from `first` on; zeros behind the last.
void load_tile(const float* x, int64_t first, int64_t tokens, int64_t channels, float* tile) {
  for (int64_t t = 0; t < kTokens; t += N) {
    const float* rows = x + (first + t) * channels;
    const int64_t count = tokens - first - t;
    for (int64_t c = 0; c < channels; c += N) {
      float* to = tile + c * kTokens + t;
      if (count >= N) {
        transpose_tile(rows + c, channels, to, kTokens);
        continue;
      }
      for (int64_t k = 0; k < N; ++k)
        for (int64_t i = 0; i < N; ++i) to[k * kTokens + i] = i < count ? rows[i * channels + c + k] : 0;
    }
  }
}

// Rows [row, row + rows) of a tile, plus their bias, to the columns of `out` (tokens, channels). Changes the tile.
void store_rows(float* tile, int64_t row, int64_t rows, const float* bias, int64_t first, int64_t tokens,
                int64_t channels, float* out) {
  for (int64_t r = 0; r < rows; r += N) {
    float* from = tile + r * kTokens;
    for (int64_t i = 0; i < N * kTokens; i += N)
      storeu(from + i, loadu(from + i) + broadcast(bias[row + r + i / kTokens]));
    for (int64_t t = 0; t < kTokens; t += N) {
      float* to = out + (first + t) * channels + row + r;
      const int64_t count = tokens - first - t;
      if (count >= N) {
        transpose_tile(from + t, kTokens, to, channels);
        continue;
      }
      for (int64_t i = 0; i < count; ++i)
        for (int64_t k = 0; k < N; ++k) to[i * channels + k] = from[k * kTokens + t + i];
    }
  }
}

void activate(Activation activation, const float* bias, int64_t rows, float* tile) {
  const vf zero = broadcast(0.f);
  for (int64_t i = 0; i < rows * kTokens; i += N) {
    const vf x = loadu(tile + i) + broadcast(bias[i / kTokens]);
    storeu(tile + i, activation == Activation::gelu ? gelu(x) : max(x, zero));
  }
}

// body(first, count), block by block; each is a checkpoint
template <class Body>
void by_blocks(int64_t rows, int64_t block, const Body& body) {
  for (int64_t row = 0; row < rows; row += block) {
    checkpoint();
    body(row, rows - row < block ? rows - row : block);
  }
}

}  // namespace

void normalised_linear_tiles(const NormalisedLinear& a, const Bf16* engine, int64_t begin, int64_t end) {
  const int64_t channels = a.linear.depth, packed = Right::floats(engine, channels);
  const int64_t kept = engine ? 1 : end - begin;  // of float32 tiles: an engine multiplies what is packed
  Scratch memory((channels * kept + kBlock) * kTokens + packed * (end - begin));
  float *block = memory.data(), *tiles = block + kBlock * kTokens, *rights = tiles + channels * kTokens * kept;
  Group group;
  for (int64_t tile = begin; tile < end; ++tile) {
    float* x = tiles + (engine ? 0 : tile - begin) * channels * kTokens;
    load_tile(a.x, tile * kTokens, a.tokens, channels, x);
    if (a.norm.weight) add_bias_and_normalise(channels, kTokens, nullptr, a.norm, x, x);
    group.add(Right(engine, a.linear.low, channels, rights + (tile - begin) * packed)).set(x, channels);
  }
  by_blocks(a.linear.rows, kBlock, [&](int64_t row, int64_t rows) {
    for (int64_t tile = begin; tile < end; ++tile) {
      group[tile - begin].multiply<false>(a.linear, row, rows, 0, block);
      store_rows(block, row, rows, a.linear.bias, tile * kTokens, a.tokens, a.linear.rows, a.out);
    }
  });
}

void residual_mlp_tiles(const ResidualMlp& a, const Bf16* engine, int64_t begin, int64_t end) {
  constexpr int64_t kHidden = 256;  // inner numbers of the MLP that exist at a time
  const int64_t channels = a.project.rows, count = end - begin;
  const int64_t widest = channels > a.project.depth ? channels : a.project.depth;
  const int64_t packed = Right::floats(engine, widest), inner_packed = Right::floats(engine, kHidden);
  const int64_t kept = engine ? 1 : count;
  Scratch memory((channels * count + widest * kept + kHidden * kept) * kTokens + (packed + inner_packed) * count);
  float *ys = memory.data(), *xs = ys + channels * kTokens * count, *hiddens = xs + widest * kTokens * kept;
  float *rights = hiddens + kHidden * kTokens * kept, *inners = rights + packed * count;
  const auto y = [&](int64_t n) { return ys + n * channels * kTokens; };
  const auto x = [&](int64_t n) { return xs + (engine ? 0 : n) * widest * kTokens; };
  const auto hidden = [&](int64_t n) { return hiddens + (engine ? 0 : n) * kHidden * kTokens; };
  Group group, inner;

  for (int64_t n = 0; n < count; ++n) {
    const int64_t first = (begin + n) * kTokens;
    load_tile(a.attended, first, a.tokens, a.project.depth, x(n));
    load_tile(a.x, first, a.tokens, channels, y(n));
    group.add(Right(engine, a.project.low, widest, rights + n * packed)).set(x(n), a.project.depth);
    inner.add(Right(engine, a.project.low, kHidden, inners + n * inner_packed));
  }
  by_blocks(channels, kBlock, [&](int64_t row, int64_t rows) {
    for (int64_t n = 0; n < count; ++n) group[n].multiply<true>(a.project, row, rows, 0, y(n) + row * kTokens);
  });
  for (int64_t n = 0; n < count; ++n) {
    add_bias_and_normalise(channels, kTokens, a.project.bias, a.norm, y(n), x(n));
    group[n].set(x(n), channels);
  }
  by_blocks(a.mlp1.rows, kHidden, [&](int64_t start, int64_t size) {
    for (int64_t n = 0; n < count; ++n) {
      by_blocks(size, kBlock, [&](int64_t row, int64_t rows) {
        group[n].multiply<false>(a.mlp1, start + row, rows, 0, hidden(n) + row * kTokens);
      });
      activate(a.activation, a.mlp1.bias + start, size, hidden(n));
      inner[n].set(hidden(n), size);
    }
    by_blocks(channels, kBlock, [&](int64_t row, int64_t rows) {
      for (int64_t n = 0; n < count; ++n) inner[n].multiply<true>(a.mlp2, row, rows, start, y(n) + row * kTokens);
    });
  });
  for (int64_t n = 0; n < count; ++n)
    store_rows(y(n), 0, channels, a.mlp2.bias, (begin + n) * kTokens, a.tokens, channels, a.out);
}

}  // namespace FP_ISA
}  // namespace fastprompt
