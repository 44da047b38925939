#include "encoder/grid_layer.h"

#include <algorithm>
#include <cmath>

#include "common/parallel.h"
#include "encoder/relative.h"

namespace fastprompt {
namespace {

constexpr int64_t kPart = 1024;  // pooled tokens that go through a layer together, at least a row of windows

class Layer {
 public:
  Layer(const GridLayer& a, const Bf16* engine)
      : a_(a),
        engine_(engine),
        inner_(a.project.depth),
        outputs_(a.project.rows),
        rows_(part_rows(a)),
        tokens_(rows_ * a.columns),
        pooled_(tokens_ / (a.pool * a.pool)),
        memory_(tokens_ * (a.qkv.rows + (a.residual.data ? outputs_ : 0)) + pooled_ * (inner_ + outputs_)) {
    qkv_ = memory_.data(), attended_ = qkv_ + tokens_ * a.qkv.rows, residual_ = attended_ + pooled_ * inner_;
    wide_ = residual_ + pooled_ * outputs_;
  }

  void run() {
    const int64_t places = a_.height * a_.columns, out_places = places / (a_.pool * a_.pool);
    for (int64_t image = 0; image < a_.images; ++image)
      for (int64_t y = 0; y < a_.height; y += rows_) {
        const int64_t rows = std::min(rows_, a_.height - y);
        const float* x = a_.x + (image * places + y * a_.columns) * a_.qkv.depth;
        float* out = a_.out + (image * out_places + y / a_.pool * (a_.columns / a_.pool)) * outputs_;
        part(x, rows, out);
      }
  }

 private:
  static int64_t part_rows(const GridLayer& a) {
    if (!a.window) return a.height;
    const int64_t row = a.window * a.columns / (a.pool * a.pool);  // of windows
    return std::min(a.height, a.window * std::max<int64_t>(1, kPart / row));
  }

  void part(const float* x, int64_t rows, float* out) {
    const int64_t tokens = rows * a_.columns;
    linear_part({tokens, x, a_.norm1, a_.qkv, qkv_}, engine_, a_.threads);
    attend(rows);
    const float* residual = a_.residual.data ? pool(x, rows) : x;
    mlp_part(
        {tokens / (a_.pool * a_.pool), a_.activation, residual, attended_, a_.project, a_.norm2, a_.mlp1, a_.mlp2, out},
        engine_, a_.threads);
  }

  void attend(int64_t rows) {
    RelativeAttention r{};
    r.images = 1, r.tokens = rows * a_.columns, r.heads = a_.heads, r.width = inner_ / a_.heads;
    r.height = rows, r.columns = a_.columns, r.window_height = r.window_columns = a_.window, r.pool = a_.pool;
    const auto part = [&](int64_t n) { return TokenRows{qkv_ + n * inner_, 0, 3 * inner_, r.width}; };
    r.query = part(0), r.key = part(1), r.value = part(2);
    r.pad_key = a_.qkv.bias + inner_, r.pad_value = a_.qkv.bias + 2 * inner_;  // hosts pad what the layer reads with 0
    r.scale = 1 / std::sqrt(static_cast<float>(r.width));
    r.out = attended_, r.precision = a_.precision, r.threads = a_.threads;
    relative_attention(r);
  }

  const float* pool(const float* x, int64_t rows) {
    linear_part({rows * a_.columns, x, a_.norm1, a_.residual, wide_}, engine_, a_.threads);
    parallel_for(a_.threads, rows / a_.pool, [&](int64_t row) {
      FP_DISPATCH(pool_rows)(wide_, row, row + 1, a_.columns, outputs_, a_.pool, residual_);
    });
    return residual_;
  }

  const GridLayer& a_;
  const Bf16* engine_;
  const int64_t inner_, outputs_, rows_, tokens_, pooled_;
  Scratch memory_;
  float *qkv_, *attended_, *residual_, *wide_;
};

}  // namespace

void grid_layer(GridLayer a) {
  const Weights weights = a.residual.data
                              ? Weights({&a.qkv, &a.residual, &a.project, &a.mlp1, &a.mlp2}, a.precision, a.threads)
                              : Weights({&a.qkv, &a.project, &a.mlp1, &a.mlp2}, a.precision, a.threads);
  const int64_t places = a.images * (a.height / a.pool) * (a.columns / a.pool);
  prefer_huge_pages(a.out, places * a.project.rows * sizeof(float));
  Layer(a, weights.engine()).run();
}

}  // namespace fastprompt
