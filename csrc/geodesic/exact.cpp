// The exact distance: tiles of the image are relaxed, nearest first, until none can improve. The fix-point is unique,
// so the result does not depend on the order or on the threads: bit-equal to Dijkstra's algorithm on the pixel graph.
#include <algorithm>
#include <condition_variable>
#include <limits>
#include <mutex>
#include <queue>
#include <vector>

#include "common/interrupt.h"
#include "common/parallel.h"
#include "geodesic/tile.h"

namespace fastprompt {
namespace {

constexpr float kIdle = std::numeric_limits<float>::infinity();

struct Waiting {
  float distance;  // the least that this tile might spread
  int64_t tile;
  bool operator<(const Waiting& other) const { return distance > other.distance; }  // priority_queue: least first
};

class TileQueue {
 public:
  TileQueue(const Geodesic& a, int64_t b, int64_t set, float* d) : a_(a), b_(b), set_(set), d_(d) {
    const int64_t size[] = {a.nz, a.ny, a.nx};
    for (int k = 0; k < 3; ++k) {
      edge_[k] = a.volume ? (k == 2 ? 32 : 16) : (k == 0 ? 1 : 64);  // 4096 pixels (8192 in a volume) stay in L1 / L2
      count_[k] = (size[k] + edge_[k] - 1) / edge_[k];
    }
    const int64_t tiles = count_[0] * count_[1] * count_[2];
    due_.assign(tiles, kIdle), busy_.assign(tiles, 0), fresh_.assign(tiles, 1);
    begin(tiles);
  }

  // Takes and relaxes tiles until none is left; any number of threads at a time.
  void work() {
    try {
      relax_all();
    } catch (...) {  // the others would wait for its tile for ever
      const std::lock_guard<std::mutex> lock(mutex_);
      failed_ = true;
      changed_.notify_all();
      throw;
    }
  }

 private:
  Tile tile(int64_t n) const {
    const int64_t x = n % count_[2], y = n / count_[2] % count_[1], z = n / count_[2] / count_[1];
    Tile t{&a_, b_, set_, z * edge_[0], y * edge_[1], x * edge_[2], 0, 0, 0, d_, false, {}};
    t.nz = std::min(edge_[0], a_.nz - t.z), t.ny = std::min(edge_[1], a_.ny - t.y);
    t.nx = std::min(edge_[2], a_.nx - t.x);
    return t;
  }

  void relax_all() {
    std::unique_lock<std::mutex> lock(mutex_);
    while (!failed_) {
      const int64_t next = take();
      if (next < 0) {
        if (running_ == 0) return changed_.notify_all();
        changed_.wait(lock);
        lock.unlock();
        checkpoint();
        lock.lock();
        continue;
      }
      Tile t = tile(next);
      t.first = fresh_[next];
      fresh_[next] = 0, busy_[next] = 1, ++running_;
      lock.unlock();
      checkpoint();
      FP_DISPATCH(relax_tile)(t);
      lock.lock();
      busy_[next] = 0, --running_;
      wake_neighbours(next, t.lowest);
      changed_.notify_all();
    }
  }

  // Pixels at the greatest start value improve nobody: a tile is due if it has a lower one.
  void begin(int64_t tiles) {
    std::vector<float> lowest(tiles, kIdle);
    for (int64_t n = 0; n < tiles; ++n) {
      if (n % 64 == 0) checkpoint();
      const Tile t = tile(n);
      for (int64_t z = t.z; z < t.z + t.nz; ++z)
        for (int64_t y = t.y; y < t.y + t.ny; ++y) {
          const float* row = d_ + (z * a_.ny + y) * a_.nx;
          for (int64_t x = t.x; x < t.x + t.nx; ++x) {
            lowest[n] = row[x] < lowest[n] ? row[x] : lowest[n];
            greatest_ = row[x] > greatest_ ? row[x] : greatest_;
          }
        }
    }
    for (int64_t n = 0; n < tiles; ++n) make_due(n, lowest[n]);
  }

  void make_due(int64_t n, float distance) {
    if (distance >= due_[n] || distance > a_.limit || distance >= greatest_) return;
    due_[n] = distance;
    queue_.push({distance, n});
  }

  // The nearest tile that is due and has no neighbour at work (which might read what this one writes), or -1.
  int64_t take() {
    std::vector<Waiting>& blocked = blocked_;
    blocked.clear();
    int64_t found = -1;
    while (found < 0 && !queue_.empty()) {
      const Waiting w = queue_.top();
      queue_.pop();
      if (w.distance != due_[w.tile]) continue;  // an older entry of this tile
      if (running_ && neighbour_busy(w.tile))
        blocked.push_back(w);
      else
        found = w.tile;
    }
    for (const Waiting& w : blocked) queue_.push(w);
    if (found >= 0) due_[found] = kIdle;
    return found;
  }

  template <class Visit>
  void neighbours(int64_t n, Visit visit) const {
    const int64_t x = n % count_[2], y = n / count_[2] % count_[1], z = n / count_[2] / count_[1];
    for (int dz = -1; dz <= 1; ++dz)
      for (int dy = -1; dy <= 1; ++dy)
        for (int dx = -1; dx <= 1; ++dx) {
          const bool inside = z + dz >= 0 && z + dz < count_[0] && y + dy >= 0 && y + dy < count_[1] && x + dx >= 0 &&
                              x + dx < count_[2];
          if (inside && (dz || dy || dx)) visit(n + (dz * count_[1] + dy) * count_[2] + dx, dz, dy, dx);
        }
  }

  bool neighbour_busy(int64_t n) const {
    bool busy = false;
    neighbours(n, [&](int64_t other, int, int, int) { busy |= busy_[other] != 0; });
    return busy;
  }

  void wake_neighbours(int64_t n, const float* lowest) {
    neighbours(n, [&](int64_t other, int dz, int dy, int dx) {
      float distance = -kIdle;  // a corner changed only if all its sides did
      const int step[] = {dz, dy, dx};
      for (int k = 0; k < 3; ++k)
        if (step[k]) distance = std::max(distance, lowest[2 * k + (step[k] > 0)]);
      make_due(other, distance);
    });
  }

  const Geodesic& a_;
  const int64_t b_, set_;
  float* const d_;
  int64_t edge_[3], count_[3];
  std::mutex mutex_;
  std::condition_variable changed_;
  std::priority_queue<Waiting> queue_;
  std::vector<Waiting> blocked_;
  std::vector<float> due_;
  std::vector<char> busy_, fresh_;
  float greatest_ = -kIdle;  // start value
  int running_ = 0;
  bool failed_ = false;
};

}  // namespace

void exact_distance(const Geodesic& a, int64_t b, int64_t set, int threads) {
  const int64_t pixels = a.nz * a.ny * a.nx;
  float* d = a.out + (b * a.sets + set) * pixels;
  FP_DISPATCH(start_distances)(a, b, set, d);
  TileQueue queue(a, b, set, d);
  parallel_for(threads, threads, [&](int64_t) { queue.work(); });
}

}  // namespace fastprompt
