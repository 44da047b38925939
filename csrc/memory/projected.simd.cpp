#include "memory/projected.h"

#include "common/interrupt.h"
#include "common/online_softmax.h"
#include "common/scratch.h"
#include "memory/turn.h"

namespace fastprompt {
namespace FP_ISA {
namespace {

constexpr int64_t Q = kProjectedQueries, kLane = 2 * N, kLanes = Q / kLane;  // queries side by side in registers
constexpr int64_t kTables = 1 << 16;          // floats of A that stay in the second-level cache
constexpr int64_t kOthers = 128;              // unturned keys of a block
constexpr int kMostFrames = N == 16 ? 8 : 6;  // that are summed up at a time: twice that many sums in registers

// Frames [first, first + count) of one position. Frames are summed up in groups of nearly the same size.
struct Frames {
  int64_t groups, all;
  explicit Frames(int64_t all) : groups((all + kMostFrames - 1) / kMostFrames), all(all) {}
  int64_t first(int64_t group) const { return all * group / groups; }
};

// logits[f] = <a + b, s[f]> of kLane queries: their tables (depth + 1, kLane), the last row being the key's bias.
template <int F>
void add_up(const float* a, const float* b, const float* s, int64_t depth, float* logits) {
  vf sums[F][2];
  for (int v = 0; v < 2; ++v) {
    const vf base = loadu(a + depth * kLane + v * N) + loadu(b + depth * kLane + v * N);
    for (int f = 0; f < F; ++f) sums[f][v] = base;
  }
  for (int64_t c = 0; c < depth; ++c, a += kLane, b += kLane, s += F) {
    const vf low = loadu(a) + loadu(b), high = loadu(a + N) + loadu(b + N);
#pragma GCC unroll 8
    for (int f = 0; f < F; ++f) {
      const vf x = broadcast(s[f]);
      sums[f][0] = fma(x, low, sums[f][0]), sums[f][1] = fma(x, high, sums[f][1]);
    }
  }
  for (int f = 0; f < F; ++f) storeu(logits + f * kLane, sums[f][0]), storeu(logits + f * kLane + N, sums[f][1]);
}

template <int F = kMostFrames>
void add_up_some(int64_t frames, const float* a, const float* b, const float* s, int64_t depth, float* logits) {
  if constexpr (F > 0) {
    if (frames == F) return add_up<F>(a, b, s, depth, logits);
    add_up_some<F - 1>(frames, a, b, s, depth, logits);
  }
}

class Task {
 public:
  Task(const ProjectedImage& image, int64_t first, int64_t last)
      : image_(image),
        a_(image.args),
        first_(first),
        count_(last - first),
        half_(a_.width / 2),
        table_((a_.depth + 1) * Q),
        frames_(image.frames()),
        columns_(a_.columns < kTables / table_ + 1 ? a_.columns : kTables / table_ + 1),
        most_(columns_ * frames_ > kOthers ? columns_ * frames_ : kOthers),
        memory_(Q * (a_.width + half_ + a_.depth + 2 + most_) + table_ * (a_.rows + columns_)) {
    q_ = memory_.data(), turned_ = q_ + Q * a_.width, sums_ = turned_ + Q * half_;
    peaks_ = sums_ + Q * a_.depth, totals_ = peaks_ + Q, logits_ = totals_ + Q;
    by_row_ = logits_ + Q * most_, by_column_ = by_row_ + table_ * a_.rows;
  }

  void run() {
    load();
    if (frames_ > 0)
      for (int64_t y = 0; y < a_.rows; ++y) make_table(1, y * a_.columns, by_row_ + y * table_);
    for (int64_t left = 0; left < a_.columns && frames_ > 0; left += columns_) {
      const int64_t right = left + columns_ < a_.columns ? left + columns_ : a_.columns;
      for (int64_t x = left; x < right; ++x) make_table(0, x, by_column_ + (x - left) * table_);
      for (int64_t y = 0; y < a_.rows; ++y) {
        checkpoint();
        for (int64_t x = left; x < right; ++x) add_position(x - left, y, y * a_.columns + x);
        read((right - left) * frames_, image_.values + (y * a_.columns + left) * frames_ * a_.depth);
      }
    }
    read_others();
    store();
  }

 private:
  // Queries, turned and scaled, a column each; zeros behind the last.
  void load() {
    for (int64_t i = 0; i < Q * a_.width; i += N) storeu(q_ + i, broadcast(0.f));
    for (int64_t i = 0; i < count_; ++i) {
      float* row = turned_;
      copy_floats(a_.query + (image_.image * a_.queries + first_ + i) * a_.width, row, a_.width);
      turn(a_.cos + (first_ + i) * a_.width, a_.sin + (first_ + i) * a_.width, a_.width, row);
      for (int64_t d = 0; d < a_.width; ++d) q_[d * Q + i] = row[d] * (a_.scale * kLog2e);
    }
  }

  // (lanes, depth + 1, kLane): the first or second half of all queries times that of the keys at a position.
  void make_table(int64_t part, int64_t position, float* table) {
    const float *q = q_ + part * half_ * Q, *weights = image_.weights + part * half_ * (a_.depth + 1);
    const float* cos = a_.key_cos + position * a_.width + part * half_;
    const float* sin = a_.key_sin + position * a_.width + part * half_;
    for (int64_t d = 0; d < half_; d += 2) {
      const vf c0 = broadcast(cos[d]), c1 = broadcast(cos[d + 1]), s0 = broadcast(sin[d]), s1 = broadcast(sin[d + 1]);
      for (int64_t i = 0; i < Q; i += N) {
        const vf x = loadu(q + d * Q + i), y = loadu(q + (d + 1) * Q + i);
        float* to = turned_ + i / kLane * kLane * half_ + d * kLane + i % kLane;
        storeu(to, fma(x, c0, y * s1)), storeu(to + kLane, y * c1 - x * s0);
      }
    }
    for (int64_t lane = 0; lane < kLanes; ++lane)
      gemm_columns<2, false>({weights, half_, 1}, turned_ + lane * kLane * half_, kLane,
                             table + lane * kLane * (a_.depth + 1), kLane, a_.depth + 1, half_);
  }

  void add_position(int64_t x, int64_t y, int64_t position) {
    const Frames frames(frames_);
    const int64_t lane_size = kLane * (a_.depth + 1);
    for (int64_t lane = 0; lane < kLanes; ++lane)
      for (int64_t group = 0; group < frames.groups; ++group) {
        const int64_t f = frames.first(group), count = frames.first(group + 1) - f;
        add_up_some(count, by_column_ + x * table_ + lane * lane_size, by_row_ + y * table_ + lane * lane_size,
                    image_.sources + (position * frames_ + f) * a_.depth, a_.depth,
                    logits_ + (lane * most_ + x * frames_ + f) * kLane);
      }
  }

  // The keys behind the frames: their logits are a product with W^T q.
  void read_others() {
    const int64_t turned = a_.keys - a_.unturned, depth = a_.depth;
    const float *source = a_.source + image_.image * a_.keys * depth,
                *value = a_.value + image_.image * a_.keys * depth;
    float* table = by_column_;
    for (int64_t part = 0; part < 2; ++part)
      for (int64_t lane = 0; lane < kLanes; ++lane) {
        const Left weights{image_.weights + part * half_ * (depth + 1), half_, 1};
        const float* q = q_ + part * half_ * Q + lane * kLane;
        float* to = table + lane * kLane * (depth + 1);
        part ? gemm_columns<2, true>(weights, q, Q, to, kLane, depth + 1, half_)
             : gemm_columns<2, false>(weights, q, Q, to, kLane, depth + 1, half_);
      }
    for (int64_t n = turned; n < a_.keys; n += kOthers) {
      checkpoint();
      const int64_t keys = a_.keys - n < kOthers ? a_.keys - n : kOthers;
      for (int64_t lane = 0; lane < kLanes; ++lane) {
        const float* from = table + lane * kLane * (depth + 1);
        float* logits = logits_ + lane * most_ * kLane;
        for (int64_t k = 0; k < keys * kLane; k += N) storeu(logits + k, loadu(from + depth * kLane + k % kLane));
        gemm_columns<2, true>({source + n * depth, depth, 1}, from, kLane, logits, kLane, keys, depth);
      }
      read(keys, value + n * depth);
    }
  }

  // Logits (keys, kLane) of all lanes become weights, and sums are added up with the values (keys, depth).
  void read(int64_t keys, const float* values) {
    for (int64_t lane = 0; lane < kLanes; ++lane) {
      float *logits = logits_ + lane * most_ * kLane, *sums = sums_ + lane * a_.depth * kLane;
      for (int64_t i = 0; i < kLane; i += N) weigh(keys, logits + i, lane * kLane + i, sums + i);
      const Left left{values, 1, a_.depth};
      begun_ ? gemm_columns<2, true>(left, logits, kLane, sums, kLane, a_.depth, keys)
             : gemm_columns<2, false>(left, logits, kLane, sums, kLane, a_.depth, keys);
    }
    begun_ = true;
  }

  void weigh(int64_t keys, float* logits, int64_t i, float* sums) {
    vf top = loadu(logits);
    for (int64_t k = 1; k < keys; ++k) top = max(loadu(logits + k * kLane), top);
    vf peak = begun_ ? loadu(peaks_ + i) : top, total = begun_ ? loadu(totals_ + i) : broadcast(0.f);
    if (begun_ && less_mask(peak + broadcast(kSlack), top)) {
      const vf higher = max(top, peak), factor = exp2(peak - higher);
      total = total * factor, peak = higher;
      for (int64_t c = 0; c < a_.depth; ++c) storeu(sums + c * kLane, loadu(sums + c * kLane) * factor);
    }
    for (int64_t k = 0; k < keys; ++k) {
      const vf weight = exp2(loadu(logits + k * kLane) - peak);
      storeu(logits + k * kLane, weight);
      total = total + weight;
    }
    storeu(peaks_ + i, peak), storeu(totals_ + i, total);
  }

  void store() {
    for (int64_t i = 0; i < count_; ++i) {
      float* to = a_.out + (image_.image * a_.queries + first_ + i) * a_.depth;
      const float share = 1.f / totals_[i];
      for (int64_t c = 0; c < a_.depth; ++c) to[c] = sums_[(i / kLane * a_.depth + c) * kLane + i % kLane] * share;
    }
  }

  const ProjectedImage& image_;
  const ProjectedRead& a_;
  const int64_t first_, count_, half_, table_, frames_;
  const int64_t columns_, most_;  // of a block of A; keys of a block
  Scratch memory_;
  float *q_, *turned_, *sums_, *peaks_, *totals_, *logits_, *by_row_, *by_column_;
  bool begun_ = false;
};

}  // namespace

void projected_pack(const ProjectedImage& image, int64_t row) {
  const ProjectedRead& a = image.args;
  const int64_t all = image.frames(), depth = a.depth;
  const Frames frames(all);
  for (int64_t position = row * a.columns; position < (row + 1) * a.columns; ++position)
    for (int64_t group = 0; group < frames.groups; ++group) {
      const int64_t first = frames.first(group), count = frames.first(group + 1) - first;
      for (int64_t f = first; f < first + count; ++f) {
        const int64_t from = (image.image * a.keys + f * image.positions() + position) * depth;
        float* to = image.sources + (position * all + first) * depth + f - first;
        for (int64_t c = 0; c < depth; ++c) to[c * count] = a.source[from + c];
        float* value = image.values + (position * all + f) * depth;
        for (int64_t c = 0; c < depth; c += N) storeu(value + c, loadu(a.value + from + c));
      }
    }
}

void projected_queries(const ProjectedImage& image, int64_t first, int64_t last) { Task(image, first, last).run(); }

}  // namespace FP_ISA
}  // namespace fastprompt
