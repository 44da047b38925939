#include "common/bf16.h"

#include <atomic>
#include <cstring>
#include <initializer_list>

#include "common/isa.h"

#if defined(__x86_64__)
#include <cpuid.h>
#endif
#if defined(__x86_64__) && defined(__linux__)
#include <sys/syscall.h>
#include <unistd.h>
#endif

namespace fastprompt {

const Bf16& bf16_avx512();
const Bf16& bf16_amx();

namespace {

void add_plain(const Bf16Product& p) {
  for (int64_t m = 0; m < p.rows; ++m) {
    const uint16_t* left = p.left + m / kBf16Rows * p.layout.down + m % kBf16Rows * p.layout.row;
    for (int64_t n = 0; n < kBf16Columns; ++n) {
      float sum = p.add ? p.out[m * p.out_row + n] : 0;
      for (int64_t k = 0; k < p.depth; ++k)
        sum += from_bf16(left[k / kBf16Depth * p.layout.along + k % kBf16Depth]) *
               from_bf16(p.right[(k / 2 * kBf16Columns + n) * 2 + k % 2]);
      p.out[m * p.out_row + n] = sum;
    }
  }
}

void multiply_plain(const Bf16Product& p) { one_by_one(p, add_plain); }

void pack_right_plain(const float* from, int64_t row, int64_t rows, int64_t depth, uint16_t* high, uint16_t* low) {
  for (int64_t k = 0; k < depth; ++k)
    for (int64_t n = 0; n < kBf16Columns; ++n) {
      const float x = k < rows ? from[k * row + n] : 0;
      const int64_t at = (k / 2 * kBf16Columns + n) * 2 + k % 2;
      high[at] = to_bf16(x);
      if (low) low[at] = to_bf16(x - from_bf16(high[at]));
    }
}

void pack_in_order_plain(const float* from, int64_t count, uint16_t* high, uint16_t* low) {
  for (int64_t k = 0; k < count; ++k) {
    high[k] = to_bf16(from[k]);
    if (low) low[k] = to_bf16(from[k] - from_bf16(high[k]));
  }
}

constexpr Bf16 kPlain{"plain", true, multiply_plain, pack_right_plain, pack_in_order_plain};

#if defined(__x86_64__)
bool cpu_has(unsigned sub, unsigned eax_bits, unsigned edx_bits) {
  unsigned eax = 0, ebx = 0, ecx = 0, edx = 0;
  if (best_isa() != Isa::avx512 || !__get_cpuid_count(7, sub, &eax, &ebx, &ecx, &edx)) return false;
  return (eax & eax_bits) == eax_bits && (edx & edx_bits) == edx_bits;
}

// Linux hands out the tile registers on request, once for a process.
bool amx_granted() {
#if defined(__linux__)
  constexpr long kRequest = 0x1023, kTileData = 18;  // ARCH_REQ_XCOMP_PERM
  return syscall(SYS_arch_prctl, kRequest, kTileData) == 0;
#else
  return false;
#endif
}

const Bf16* detect() {
  const bool bf16 = cpu_has(1, 1u << 5, 0);
  if (bf16 && cpu_has(0, 0, 1u << 22 | 1u << 24) && amx_granted()) return &bf16_amx();
  return bf16 ? &bf16_avx512() : nullptr;
}
#else
const Bf16* detect() { return nullptr; }
#endif

std::atomic<const Bf16*>& current() {
  static std::atomic<const Bf16*> engine{detect()};
  return engine;
}

}  // namespace

// "plain" runs with any instruction set, so that the tests need none.
const Bf16* bf16(Precision precision) {
  const Bf16* engine = current().load(std::memory_order_relaxed);
  if (engine && engine != &kPlain && isa() != Isa::avx512) engine = nullptr;
  if (!engine || precision == Precision::highest) return nullptr;
  return precision == Precision::medium || engine->three_pay ? engine : nullptr;
}

const char* bf16_name() {
  const Bf16* engine = current();
  return engine ? engine->name : "none";
}

bool set_bf16(const char* name) {
  if (!std::strcmp(name, "best")) return current() = detect(), true;
  if (!std::strcmp(name, "none")) return current() = nullptr, true;
  if (!std::strcmp(name, "plain")) return current() = &kPlain, true;
#if defined(__x86_64__)
  if (!std::strcmp(name, "avx512_bf16") && cpu_has(1, 1u << 5, 0)) return current() = &bf16_avx512(), true;
  if (!std::strcmp(name, "amx")) return current() = &bf16_amx(), true;  // may be emulated: tests/amx_emulator.c
#endif
  return false;
}

int64_t round_to_depth(int64_t depth) { return (depth + kBf16Depth - 1) / kBf16Depth * kBf16Depth; }

uint16_t to_bf16(float x) {
  uint32_t bits;
  std::memcpy(&bits, &x, 4);
  if (x != x) return static_cast<uint16_t>(bits >> 16 | 0x40);  // NaN stays one
  return static_cast<uint16_t>((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}

float from_bf16(uint16_t x) {
  const uint32_t bits = static_cast<uint32_t>(x) << 16;
  float value;
  std::memcpy(&value, &bits, 4);
  return value;
}

void pack_left(const float* from, ptrdiff_t row, ptrdiff_t step, int64_t rows, int64_t depth, uint16_t* high,
               uint16_t* low) {
  const int64_t padded = round_to_depth(depth);
  for (int64_t m = 0; m < rows; ++m)
    for (int64_t k = 0; k < padded; ++k) {
      const float x = k < depth ? from[m * row + k * step] : 0;
      high[m * padded + k] = to_bf16(x);
      if (low) low[m * padded + k] = to_bf16(x - from_bf16(high[m * padded + k]));
    }
}

void multiply(const Bf16& engine, const Bf16Operand& left, const Bf16Layout& layout, const Bf16Operand& right,
              float* out, int64_t out_row, int64_t rows, int64_t depth, bool add) {
  const bool three = left.low && right.low;
  engine.multiply({left.high, right.high, out, layout, out_row, rows, depth, add, three ? left.low : nullptr,
                   three ? right.low : nullptr});
}

}  // namespace fastprompt
