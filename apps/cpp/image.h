#pragma once

#include <cstdint>
#include <filesystem>
#include <vector>

#include "bundle.h"

namespace cspedge {

// 8-bit RGB, rows from the top, three bytes a pixel. Whatever decodes your images gives this: stb_image, libjpeg-turbo,
// OpenCV (which has them as BGR).
struct Image {
  int width = 0;
  int height = 0;
  std::vector<std::uint8_t> pixels;
};

// A binary PPM (P6) of 8 bits: `magick photo.jpg photo.ppm`. Failure for anything else.
Image read_ppm(const std::filesystem::path& path);

// Pixels alone, of a size that is known, as golden/ has them.
Image from_rgb(const Bytes& pixels, int width, int height);

}  // namespace cspedge
