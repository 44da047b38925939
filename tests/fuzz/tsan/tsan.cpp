// Eight threads call kernels that share the pool, the teams and the memory, while calls are ended, fail and fork and
// the memory is released. ThreadSanitizer watches; every result is compared with that of one thread.
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <limits>
#include <new>
#include <thread>
#include <vector>

#include "common/interrupt.h"
#include "common/parallel.h"
#include "common/release.h"
#include "common/scratch.h"
#include "encoder/layer.h"
#include "geodesic/euclidean.h"
#include "geodesic/geodesic.h"

using namespace fastprompt;

// The parts of a picture's row in a raster scan read, in their margins, what the part next door writes: either value
// will do (raster.simd.cpp).
extern "C" const char* __tsan_default_suppressions() { return "race:relax_part\nrace:Raster*relax_part\n"; }

namespace {

std::atomic<long> wrong{0}, calls{0};

void check(bool right, const char* what) {
  if (!right && ++wrong) std::printf("wrong: %s\n", what);
}

std::vector<float> noise(size_t count, unsigned seed) {
  std::vector<float> x(count);
  for (float& v : x) v = static_cast<float>((seed = seed * 1664525u + 1013904223u) >> 8) / (1 << 24);
  return x;
}

View view(const void* data, DType dtype, const int64_t* shape) {
  View v{data, dtype, {}};
  for (int64_t k = 4, step = 1; k >= 0; step *= shape[k--]) v.stride[k] = step;
  return v;
}

struct Problem {
  static constexpr int64_t kChannels = 3;
  int64_t nz, ny, nx;
  std::vector<float> image;
  std::vector<uint8_t> seeds;

  Problem(int64_t nz, int64_t ny, int64_t nx)
      : nz(nz), ny(ny), nx(nx), image(noise(kChannels * nz * ny * nx, 7)), seeds(nz * ny * nx) {
    seeds[0] = seeds[seeds.size() / 2] = 1;
  }
  std::vector<float> geodesic(Method method, int threads) const {
    std::vector<float> out(seeds.size());
    Geodesic a{};
    const int64_t image_shape[] = {1, kChannels, nz, ny, nx}, shape[] = {1, 1, nz, ny, nx};
    a.image = view(image.data(), DType::f32, image_shape), a.start = view(seeds.data(), DType::u8, shape);
    a.out = out.data(), a.batch = a.sets = 1, a.channels = kChannels, a.nz = nz, a.ny = ny, a.nx = nx;
    a.volume = nz > 1, a.method = method, a.start_kind = Start::nonzero, a.iterations = 2;
    a.grad_weight = a.step_weight = 0.5f, a.v = a.limit = std::numeric_limits<float>::infinity();
    a.spacing[0] = a.spacing[1] = a.spacing[2] = 1, a.threads = threads;
    geodesic_distance(a);
    return out;
  }
  std::vector<float> euclidean(int threads) const {
    std::vector<float> out(seeds.size());
    const int64_t shape[] = {1, 1, nz, ny, nx};
    euclidean_distance_transform({view(seeds.data(), DType::u8, shape), out.data(), 1, nz, ny, nx, {1, 1, 1}, threads});
    return out;
  }
};

std::vector<float> layer(int threads) {
  const int64_t tokens = 300, channels = 64, rows = 96;
  const std::vector<float> x = noise(tokens * channels, 1), weight = noise(rows * channels, 2), bias = noise(rows, 3);
  std::vector<float> out(tokens * rows);
  normalised_linear({tokens, x.data(), {}, {weight.data(), rows, channels, bias.data(), nullptr, nullptr}, out.data()},
                    Precision::highest, threads);
  return out;
}

using Call = std::function<std::vector<float>(int threads)>;

// Ended by its caller after a while, or not at all where it is faster.
void ended(const Call& call) {
  const auto ask = [](void* context) { return ++*static_cast<int*>(context) > 0; };
  int asked = 0;
  const Watch watch(ask, &asked);
  try {
    for (int k = 0; k < 3; ++k) call(4);
  } catch (const Interrupted&) {
    check(watch.ended(), "interrupt");
  }
}

void failing() {
  try {
    parallel_for(4, 30, [](int64_t k) {
      if (k == 7) throw std::bad_alloc();
    });
    check(false, "exception");
  } catch (const std::bad_alloc&) {
  }
  const auto program = [](Member& m, void* fails_at) {
    for (int stage = 0; stage < 20; ++stage) {
      m.stage(50);
      for (int64_t from, to; m.next(&from, &to);)
        if (stage == *static_cast<int*>(fails_at) && from == 0) throw std::bad_alloc();
    }
  };
  int stage = static_cast<int>(calls % 20);
  try {
    run_team(team_size(4), program, &stage);
    check(false, "exception");
  } catch (const std::bad_alloc&) {
  }
}

void forking(const Call& call, const std::vector<float>& expected) {
  const pid_t child = fork();
  if (child == 0) {
    const bool right = call(1) == expected;  // ThreadSanitizer allows no new threads here
    release_memory();
    _exit(right ? 0 : 1);
  }
  int status = 0;
  waitpid(child, &status, 0);
  check(status == 0, "child");
}

}  // namespace

int main(int argc, char** argv) {
  const auto seconds = std::chrono::seconds(argc > 1 ? std::atoi(argv[1]) : 30);
  const Problem picture(1, 90, 120), large(1, 800, 800), volume(9, 20, 33);
  const std::vector<Call> kernels = {[&](int n) { return picture.geodesic(Method::exact, n); },
                                     [&](int n) { return volume.geodesic(Method::exact, n); },
                                     [&](int n) { return volume.geodesic(Method::raster, n); },
                                     [&](int n) { return large.geodesic(Method::raster, n); },
                                     [&](int n) { return picture.geodesic(Method::toivanen, n); },
                                     [&](int n) { return volume.euclidean(n); },
                                     [&](int n) { return large.euclidean(n); },
                                     layer};
  std::vector<std::vector<float>> expected;
  for (const Call& call : kernels) expected.push_back(call(1));

  const auto end = std::chrono::steady_clock::now() + seconds;
  std::vector<std::thread> threads;
  for (int t = 0; t < 8; ++t)
    threads.emplace_back([&, t] {
      for (int n = t; std::chrono::steady_clock::now() < end; ++n, ++calls) {
        const size_t k = n % kernels.size();
        check(kernels[k](1 + n % 5) == expected[k], "result");
        if (n % 5 == 0) failing();
        if (n % 7 == 0) release_memory();
        if (n % 11 == 0) ended(kernels[k]);
        if (t == 0 && n % 8 == 0) forking(kernels[0], expected[0]);
      }
    });
  for (std::thread& t : threads) t.join();
  std::printf("%ld calls, %ld wrong\n", calls.load(), wrong.load());
  return wrong != 0;
}
