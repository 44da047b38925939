// Maps of clicks on regions: superpixels and object proposals; and the vectors that VPUFormer makes of a prompt.
#pragma once
#include <cstdint>

namespace fastprompt {

// The clicks of all functions here: not finite, or both coordinates negative = no click.
struct RegionClicks {
  int64_t clicks, channels;
  const float* points;       // (clicks, 2): x, y in pixels; the pixel is the nearest one
  const int64_t* labels;     // (clicks)
  const int64_t* of_labels;  // (channels)
};

struct SuperpixelMap {
  RegionClicks clicks;
  int64_t regions, height, width;
  const int64_t* region;  // (height, width): 0 … regions - 1
  float clip;
  float* out;  // (channels, height, width)
};

// min(clip, distance from the centroid of a pixel's superpixel to that of the nearest clicked one).
// Returns the first click outside the image, or -1; nothing is written then.
int64_t superpixel_map(const SuperpixelMap& args);

struct ProposalVotes {
  RegionClicks clicks;
  int64_t proposals, height, width;
  const uint8_t* member;  // (proposals, height, width): not 0 = in the proposal
  float* out;             // (channels, height, width)
};

// Sum over the proposals that a pixel is in of their clicks. Returns as above.
int64_t proposal_votes(const ProposalVotes& args);

struct PromptVectors {
  int64_t prompts, height, width;
  const double* centre;   // (prompts, 2): whole numbers x, y
  const int64_t* radius;  // (prompts, 2) along x and y; -1 = a vector of zeros
  const double* sigma;    // (prompts, 2)
  const int64_t* bit;     // (prompts): 0, 1 or 2, the label bit that is set
  const float* peak;      // (prompts): is added at the centre
  float* out;             // (prompts, width + height + 3)
};

void prompt_vectors(const PromptVectors& args);

}  // namespace fastprompt
