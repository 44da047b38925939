// One axis after the other, as on the CPU: rows to a seed in the same column, whose squares are the heights of
// parabolas, then their lower envelope along x, then the same along z. Only squares are added, and the least one taken.
#include <cfloat>

#include "common/cuda.cuh"
#include "geodesic/cuda_euclidean.h"
#include "geodesic/euclidean_unit.h"

namespace fastprompt {
namespace {

constexpr int kWarp = 32, kMostWarps = 32;
constexpr int kRowWarps = 4;                   // of a block, which has one row of the image
constexpr int kDepthWarps = 8, kColumns = 16;  // of a block, which has 16 neighbouring lines along z
constexpr int kSharedBytes = 48 * 1024;
constexpr unsigned kAll = 0xffffffffu;

__host__ __device__ int divided_up(int x, int unit) { return (x + unit - 1) / unit; }

// NOTE: not inf, which times 0 rows is NaN.
__host__ __device__ float square(double d) {
  const double s = d * d;
  return static_cast<float>(s < FLT_MAX ? s : FLT_MAX);
}

__device__ float infinity() { return __int_as_float(0x7f800000); }

// ---------------------------------------------------------------- columns

// 32 columns of a plane. A bit of a word says whether a pixel is a seed: lane = column, word = 32 rows. So the nearest
// seed above and below is a matter of counting zeros, and the image is read once and written once.
class Columns {
 public:
  __device__ Columns(unsigned* words, int ny) : words_(words + threadIdx.x % kWarp), ny_(ny) {}

  __device__ void read(const uint8_t* column, int nx, int k) {
    unsigned word = 0;
#pragma unroll
    for (int r = 0; r < kWarp; ++r) {
      const int y = kWarp * k + r;
      if (column && y < ny_ && column[int64_t(y) * nx]) word |= 1u << r;
    }
    words_[kWarp * k] = word;
  }

  // Squares of the distances of 32 rows; they know the nearest seeds of the words before and behind.
  __device__ void write(float* column, int nx, int k, float y_square) const {
    const unsigned word = words_[kWarp * k];
    const int before = last_before(k), behind = first_behind(k);
    for (int r = 0; r < kWarp && kWarp * k + r < ny_; ++r) {
      const int y = kWarp * k + r;
      const unsigned above = word << (kWarp - 1 - r), below = word >> r;
      const int last = above ? y - __clz(above) : before, first = below ? y + __ffs(below) - 1 : behind;
      const float up = last < 0 ? infinity() : static_cast<float>(y - last);
      const float down = first < 0 ? infinity() : static_cast<float>(first - y);
      const float least = fminf(up, down);
      column[int64_t(y) * nx] = least * least * y_square;
    }
  }

 private:
  // A row, or -1.
  __device__ int last_before(int k) const {
    while (--k >= 0)
      if (const unsigned word = words_[kWarp * k]) return kWarp * k + kWarp - 1 - __clz(word);
    return -1;
  }
  __device__ int first_behind(int k) const {
    while (++k < divided_up(ny_, kWarp))
      if (const unsigned word = words_[kWarp * k]) return kWarp * k + __ffs(word) - 1;
    return -1;
  }

  unsigned* words_;
  const int ny_;
};

// Fills `squares` with the tables of x and z on the side: they are read by the next launches.
__global__ void __launch_bounds__(kWarp* kMostWarps)
    columns_kernel(const uint8_t* mask, float* squared, float* squares, int nz, int ny, int nx, double z_step,
                   double x_step, float y_square) {
  extern __shared__ unsigned words[];
  const int64_t thread = int64_t(blockIdx.x) * blockDim.x + threadIdx.x, threads = int64_t(gridDim.x) * blockDim.x;
  for (int64_t k = thread; k < int64_t(nx) + nz; k += threads)
    squares[k] = k < nx ? square(k * x_step) : square((k - nx) * z_step);
  const int tiles = divided_up(nx, kWarp), x = blockIdx.x % tiles * kWarp + threadIdx.x % kWarp;
  const int64_t first = int64_t(blockIdx.x / tiles) * ny * nx + x;
  Columns columns(words, ny);
  const int warp = threadIdx.x / kWarp, warps = blockDim.x / kWarp, number = divided_up(ny, kWarp);
  for (int k = warp; k < number; k += warps) columns.read(x < nx ? mask + first : nullptr, nx, k);
  __syncthreads();
  for (int k = warp; k < number && x < nx; k += warps) columns.write(squared + first, nx, k, y_square);
}

// ---------------------------------------------------------------- lines

// Lower envelope of n parabolas: the minimum over c of  heights[c] + square[|x - c|].
// If C is a best c of pixel x, the pixels left of x have a best c <= C and those right of x one >= C. So halving finds
// the best c of every 32nd pixel, and 32 pixels try the candidates between those of their two ends.
template <int kWarps>
class Envelope {
 public:
  __device__ Envelope(const float* heights, int64_t stride, const float* square, int n, int* best)
      : heights_(heights), stride_(stride), square_(square), n_(n), best_(best) {}

  static __host__ __device__ int knots(int n) { return divided_up(n - 1, kWarp) + 1; }

  // best[k] belongs to pixel 32 k, the last one to pixel n - 1.
  __device__ void search_all() const {
    const int last = knots(n_) - 1;
    if (warp() == 0) search(0, 0, 0, n_ - 1);
    if (warp() == kWarps - 1 && last > 0) search(last, n_ - 1, 0, n_ - 1);
    wait();
    int step = 1;
    while (2 * step < last) step *= 2;
    for (; step > 0; step /= 2) {
      for (int k = step + 2 * step * warp(); k < last; k += 2 * step * kWarps)
        search(k, kWarp * k, best_[k - step], best_[min(k + step, last)]);
      wait();
    }
  }

  // Pixel x, of the 32 pixels behind knot k.
  __device__ float value(int k, int x) const {
    const int low = best_[k], high = best_[min(k + 1, knots(n_) - 1)];
    float least = infinity();
    for (int c = low; c <= high; ++c) least = fminf(least, candidate(x, c));
    return least;
  }

 private:
  static __device__ int lane() { return threadIdx.x % kWarp; }
  static __device__ int warp() { return kWarps == 1 ? 0 : threadIdx.x / kWarp; }
  static __device__ void wait() { kWarps == 1 ? __syncwarp() : __syncthreads(); }
  __device__ float candidate(int x, int c) const { return heights_[c * stride_] + square_[abs(x - c)]; }

  // A best c in [low, high] of pixel x.
  __device__ void search(int knot, int x, int low, int high) const {
    float least = infinity();
    int at = low;
    for (int c = low + lane(); c <= high; c += kWarp) {
      const float here = candidate(x, c);
      if (here < least) least = here, at = c;
    }
    float best = least;
    for (int step = kWarp / 2; step > 0; step /= 2) best = fminf(best, __shfl_xor_sync(kAll, best, step));
    at = __shfl_sync(kAll, at, __ffs(__ballot_sync(kAll, least == best)) - 1);
    if (lane() == 0) best_[knot] = at;
  }

  const float* heights_;
  const int64_t stride_;
  const float* square_;
  const int n_;
  int* best_;
};

// One row a block. `unit` is that of the roots; 0: leave the squares.
__global__ void __launch_bounds__(kWarp* kRowWarps)
    rows_kernel(const float* squared, const float* square, float* out, int nx, float unit) {
  extern __shared__ int best[];
  const int64_t row = int64_t(blockIdx.x) * nx;
  const Envelope<kRowWarps> envelope(squared + row, 1, square, nx, best);
  envelope.search_all();
  for (int x = threadIdx.x; x < nx; x += kWarp * kRowWarps) {
    const float value = envelope.value(x / kWarp, x);
    out[row + x] = unit == 0.f ? value : sqrtf(value) * unit;
  }
}

// Lines along z of 16 neighbouring pixels of the plane, a warp for each. Staged: by way of shared memory, so that
// global memory is read and written in pieces of 64 bytes.
template <bool kStaged>
__global__ void __launch_bounds__(kWarp* kDepthWarps)
    depth_kernel(const float* squared, const float* square, float* out, int nz, int64_t plane, float unit) {
  extern __shared__ int shared[];
  const int warp = threadIdx.x / kWarp, lane = threadIdx.x % kWarp, pitch = kColumns + 1;
  const int64_t groups = (plane + kColumns - 1) / kColumns, p = blockIdx.x % groups * kColumns;
  const int64_t first = blockIdx.x / groups * nz * plane + p;
  const int columns = static_cast<int>(plane - p < kColumns ? plane - p : kColumns);
  int* best = shared + warp * Envelope<1>::knots(nz);
  float* tile = reinterpret_cast<float*>(shared + kDepthWarps * Envelope<1>::knots(nz));
  float* line = tile + nz * pitch + warp * nz;
  for (int k = threadIdx.x; kStaged && k < nz * kColumns; k += kWarp * kDepthWarps)
    if (k % kColumns < columns)
      tile[k / kColumns * pitch + k % kColumns] = squared[first + k / kColumns * plane + k % kColumns];
  __syncthreads();
  for (int column = warp; column < columns; column += kDepthWarps) {
    const float* heights = kStaged ? tile + column : squared + first + column;
    const Envelope<1> envelope(heights, kStaged ? pitch : plane, square, nz, best);
    envelope.search_all();
    for (int z = lane; z < nz; z += kWarp) {
      const float value = sqrtf(envelope.value(z / kWarp, z)) * unit;
      (kStaged ? line[z] : out[first + column + z * plane]) = value;
    }
    __syncwarp();
    for (int z = lane; kStaged && z < nz; z += kWarp) tile[z * pitch + column] = line[z];
    __syncwarp();
  }
  __syncthreads();
  for (int k = threadIdx.x; kStaged && k < nz * kColumns; k += kWarp * kDepthWarps)
    if (k % kColumns < columns)
      out[first + k / kColumns * plane + k % kColumns] = tile[k / kColumns * pitch + k % kColumns];
}

int depth_bytes(int nz, bool staged) {
  const int knots = kDepthWarps * Envelope<1>::knots(nz), tile = nz * (kColumns + 1 + kDepthWarps);
  return int(sizeof(float)) * (knots + (staged ? tile : 0));
}

}  // namespace

int64_t euclidean_cuda_workspace(const EuclideanCuda& a) { return a.batch * a.nz * a.ny * a.nx + a.nx + a.nz; }

void euclidean_cuda(const EuclideanCuda& a, void* stream) {
  const int64_t planes = a.batch * a.nz, plane = int64_t(a.ny) * a.nx;
  if (planes * plane == 0) return;
  const auto s = static_cast<cudaStream_t>(stream);
  double step[3];
  const int64_t sizes[] = {a.nz, a.ny, a.nx};
  const auto unit = static_cast<float>(euclidean_unit(a.spacing, sizes, step));
  float* squares = a.workspace + planes * plane;
  const bool flat = a.nz == 1;
  float *heights = flat ? a.workspace : a.out, *rows = flat ? a.out : a.workspace;

  const int words = divided_up(a.ny, kWarp), warps = words < kMostWarps ? words : kMostWarps;
  columns_kernel<<<planes * divided_up(a.nx, kWarp), kWarp * warps, sizeof(unsigned) * kWarp * words, s>>>(
      a.mask, heights, squares, a.nz, a.ny, a.nx, step[0], step[2], square(step[1]));
  check_cuda(cudaGetLastError(), "euclidean_cuda, columns");
  rows_kernel<<<planes * a.ny, kWarp * kRowWarps, sizeof(int) * Envelope<kRowWarps>::knots(a.nx), s>>>(
      heights, squares, rows, a.nx, flat ? unit : 0.f);
  check_cuda(cudaGetLastError(), "euclidean_cuda, rows");
  if (flat) return;
  const bool staged = depth_bytes(a.nz, true) <= kSharedBytes;
  const auto kernel = staged ? depth_kernel<true> : depth_kernel<false>;
  kernel<<<a.batch*((plane + kColumns - 1) / kColumns), kWarp * kDepthWarps, depth_bytes(a.nz, staged), s>>>(
      rows, squares + a.nx, a.out, a.nz, plane, unit);
  check_cuda(cudaGetLastError(), "euclidean_cuda, depth");
}

}  // namespace fastprompt
