// Files, and what comes after the decoder.
#pragma once
#include "decoder.h"

// A float32 array that numpy.save wrote.
Tensor read_npy(const std::string& path);

// Mask k at the size of the picture: logits to the frame of the network (1024 x 1024), of that the picture, without the
// padding, to its own size; each bilinear, as SAM does it. 255 where the result is over 0.
std::vector<uint8_t> full_size(const Tensor& logits, int64_t k, int64_t frame, int64_t width, int64_t height);

void write_pgm(const std::string& path, const std::vector<uint8_t>& pixels, int64_t width, int64_t height);
