// Executes AMX instructions on a machine that has none: the handler of SIGILL decodes the instruction that the
// processor refused, does its work on tiles in memory, and goes on behind it. Covers what csrc/common/bf16_amx.cpp
// emits: ldtilecfg, tileloadd, tilestored, tilezero, tdpbf16ps, tilerelease.
// amx_install() and amx_remove() return 0.
#define _GNU_SOURCE
#include <signal.h>
#include <stdint.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <ucontext.h>
#include <unistd.h>

struct Tiles {
  uint8_t rows[16];
  uint16_t bytes[16];
  uint8_t data[8][16][64];
  int configured;
  pid_t owner;
};

static struct Tiles threads[256];  // of each thread; __thread may allocate, which a signal handler must not

long amx_executed = 0;  // for the tests: proof that the emulator was asked

static struct Tiles* own_tiles(void) {
  const pid_t self = (pid_t)syscall(SYS_gettid);
  for (int k = 0; k < 256; ++k) {
    pid_t nobody = 0;
    if (threads[k].owner == self) return threads + k;
    if (__atomic_compare_exchange_n(&threads[k].owner, &nobody, self, 0, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST))
      return threads + k;
  }
  return 0;
}

static uint64_t reg(const ucontext_t* c, int n) {
  static const int order[16] = {REG_RAX, REG_RCX, REG_RDX, REG_RBX, REG_RSP, REG_RBP, REG_RSI, REG_RDI,
                                REG_R8,  REG_R9,  REG_R10, REG_R11, REG_R12, REG_R13, REG_R14, REG_R15};
  return (uint64_t)c->uc_mcontext.gregs[order[n]];
}

static float bf16(uint16_t x) {
  uint32_t bits = (uint32_t)x << 16;
  float value;
  memcpy(&value, &bits, 4);
  return value;
}

// sums[m][n] += a[m][2k] b[k][2n] + a[m][2k + 1] b[k][2n + 1]
static void multiply(struct Tiles* tile, int sums, int a, int b) {
  for (int m = 0; m < tile->rows[sums]; ++m)
    for (int k = 0; k < tile->bytes[a] / 4; ++k)
      for (int n = 0; n < tile->bytes[sums] / 4; ++n) {
        float* sum = (float*)tile->data[sums][m] + n;
        const uint16_t *x = (const uint16_t*)tile->data[a][m] + 2 * k, *y = (const uint16_t*)tile->data[b][k] + 2 * n;
        *sum += bf16(x[0]) * bf16(y[0]);
        *sum += bf16(x[1]) * bf16(y[1]);
      }
}

struct Operand {
  int reg, rm, mod;
  uint64_t base, stride;
  const uint8_t* end;
};

// ModRM, SIB and displacement; `x`, `b`, `r` are the inverted extension bits of the prefix.
static struct Operand operand(const ucontext_t* c, const uint8_t* p, int r, int x, int b) {
  struct Operand o = {(p[0] >> 3 & 7) | r << 3, (p[0] & 7) | b << 3, p[0] >> 6, 0, 0, p + 1};
  if (o.mod == 3) return o;
  int base = o.rm;
  if ((p[0] & 7) == 4) {
    const int index = (p[1] >> 3 & 7) | x << 3;
    base = (p[1] & 7) | b << 3;
    if (index != 4) o.stride = reg(c, index) << (p[1] >> 6);
    o.end = p + 2;
  }
  int32_t displacement = 0;
  if (o.mod == 1) {
    displacement = (int8_t)*o.end++;
  } else if (o.mod == 2 || (base & 7) == 5) {
    memcpy(&displacement, o.end, 4);
    o.end += 4;
  }
  const int rip = o.mod == 0 && (p[0] & 7) == 5, none = o.mod == 0 && (p[0] & 7) == 4 && (base & 7) == 5;
  o.base = (rip ? (uint64_t)o.end : none ? 0 : reg(c, base)) + (int64_t)displacement;
  return o;
}

static void configure(struct Tiles* tile, const uint8_t* memory) {
  memset(tile->data, 0, sizeof tile->data);
  memcpy(tile->bytes, memory + 16, 32);
  memcpy(tile->rows, memory + 48, 16);
  tile->configured = memory[0] == 1;
}

static int execute(ucontext_t* c) {
  const uint8_t* p = (const uint8_t*)c->uc_mcontext.gregs[REG_RIP];
  struct Tiles* tile = own_tiles();
  if (!tile || p[0] != 0xc4 || (p[1] & 31) != 2) return 0;
  const int prefix = p[2] & 3, source = ~(p[2] >> 3) & 15;
  const struct Operand o = operand(c, p + 4, !(p[1] & 0x80), !(p[1] & 0x40), !(p[1] & 0x20));
  if (p[3] == 0x49 && prefix == 0 && o.mod != 3) {
    configure(tile, (const uint8_t*)o.base);
  } else if (!tile->configured) {
    return 0;  // as the processor: no tile without a configuration
  } else if (p[3] == 0x49 && prefix == 0) {
    tile->configured = 0;
  } else if (p[3] == 0x49 && prefix == 3) {
    memset(tile->data[o.reg], 0, sizeof tile->data[0]);
  } else if (p[3] == 0x4b && prefix == 3) {
    memset(tile->data[o.reg], 0, sizeof tile->data[0]);
    for (int m = 0; m < tile->rows[o.reg]; ++m)
      memcpy(tile->data[o.reg][m], (const uint8_t*)(o.base + m * o.stride), tile->bytes[o.reg]);
  } else if (p[3] == 0x4b && prefix == 2) {
    for (int m = 0; m < tile->rows[o.reg]; ++m)
      memcpy((uint8_t*)(o.base + m * o.stride), tile->data[o.reg][m], tile->bytes[o.reg]);
  } else if (p[3] == 0x5c && prefix == 2) {
    multiply(tile, o.reg, o.rm, source);
  } else {
    return 0;
  }
  __atomic_add_fetch(&amx_executed, 1, __ATOMIC_RELAXED);
  c->uc_mcontext.gregs[REG_RIP] = (greg_t)o.end;
  return 1;
}

static void handler(int signal_number, siginfo_t* info, void* context) {
  (void)info;
  if (!execute(context)) signal(signal_number, SIG_DFL);  // a real fault: let it happen again
}

static struct sigaction before;

int amx_install(void) {
  struct sigaction action;
  memset(&action, 0, sizeof action);
  action.sa_sigaction = handler;
  action.sa_flags = SA_SIGINFO | SA_NODEFER;
  return sigaction(SIGILL, &action, &before);
}

int amx_remove(void) { return sigaction(SIGILL, &before, 0); }
