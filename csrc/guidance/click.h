// Maps of the distance to the nearest click, of several encodings: the clicks go in, the output is written once.
//   d2(p) = min over the clicks q of a channel of  (y_p - y_q)^2 + (x_p - x_q)^2,  every pixel's map a function of it
#pragma once
#include <cstdint>

#include "common/isa.h"

namespace fastprompt {

enum class ClickEncoding : int { disk, euclidean, tanh, gaussian };

struct ClickMaps {
  int64_t images, clicks, channels, height, width;
  const float* points;       // (images, clicks, 2): x, y in pixels; not finite, or both negative = no click
  const int64_t* labels;     // (images, clicks)
  const int64_t* of_labels;  // (channels): a channel shows the clicks with this label
  ClickEncoding encoding;
  int64_t scales;        // maps of every channel, which differ in
  const float* scale;    // (scales): disk: radius^2; tanh: 2 / radius; gaussian: the factor of d2 in the exponent
  float clip, divisor;   // euclidean: min(d, clip) / divisor
  float missing;         // d2 that an empty slot counts as: +inf, or 1e6 as in RITM
  bool stretch;          // every map to [0, 1], least to largest
  float* out;            // (images, channels, scales, height, width)
  int64_t image_stride;  // floats from an image of `out` to the next
  int threads;
};

void click_maps(const ClickMaps& args);

// What the bands of rows share. Map m = image * channels + channel.
struct ClickPlan {
  ClickMaps args;
  const float *x, *y;    // the clicks, map by map
  const int64_t* first;  // (maps + 1): those of map m are [first[m], first[m + 1])
  const float* start;    // (maps): least d2 of the empty slots
  const float* reach;    // (scales): beyond this d2 the map is `limit`
  float limit;
};

FP_DECLARE_ISA(void, click_band, (const ClickPlan& plan, int64_t map, int64_t first_row, int64_t last_row))
FP_DECLARE_ISA(void, stretch_map, (float* map, int64_t pixels))

}  // namespace fastprompt
