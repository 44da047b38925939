// One tile of the exact solver: a box of pixels that is relaxed until nothing in it changes.
#pragma once
#include "geodesic/geodesic.h"

namespace fastprompt {

constexpr int kSides = 6;  // -z, +z, -y, +y, -x, +x

struct Tile {
  const Geodesic* args;
  int64_t b, set;
  int64_t z, y, x, nz, ny, nx;  // first pixel and size, each axis at most 64
  float* d;                     // distances of the whole image, (nz, ny, nx) of args, started
  bool first;                   // relax everything; else only what the halo brings
  float lowest[kSides];         // out: the least distance that changed on that side, +inf if none did
};

// Relaxes the tile against its halo until no edge into it improves anything, and writes it back.
FP_DECLARE_ISA(void, relax_tile, (Tile & tile))

}  // namespace fastprompt
