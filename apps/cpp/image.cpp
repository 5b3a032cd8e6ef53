#include "image.h"

#include <cctype>
#include <string>

#include "failure.h"

namespace cspedge {

namespace {

constexpr long kLargest = 1 << 20;  // a side in pixels; the manifest limits the product

Failure malformed(const std::filesystem::path& path, const std::string& why) {
  return Failure(Code::input, path.string() + " is no binary PPM of 8 bits (" + why + "); convert it: magick photo.jpg photo.ppm");
}

// The next number of a header: white space and comments in front of it, one character behind it.
long number(const Bytes& bytes, std::size_t& at, const std::filesystem::path& path) {
  while (at < bytes.size() && (std::isspace(bytes.data()[at]) || bytes.data()[at] == '#')) {
    if (bytes.data()[at] == '#') {
      while (at < bytes.size() && bytes.data()[at] != '\n') {
        ++at;
      }
    } else {
      ++at;
    }
  }
  const std::size_t start = at;
  long value = 0;
  while (at < bytes.size() && std::isdigit(bytes.data()[at]) && value <= kLargest) {
    value = value * 10 + (bytes.data()[at++] - '0');
  }
  if (at == start || at >= bytes.size() || !std::isspace(bytes.data()[at]) || value > kLargest) {
    throw malformed(path, "its header ends early or names a size above " + std::to_string(kLargest));
  }
  return value;
}

}  // namespace

Image read_ppm(const std::filesystem::path& path) {
  const Bytes bytes = read_file(path);
  if (bytes.size() < 2 || bytes.data()[0] != 'P' || bytes.data()[1] != '6') {
    throw malformed(path, "it does not begin with P6");
  }
  std::size_t at = 2;
  const long width = number(bytes, at, path);
  const long height = number(bytes, at, path);
  if (number(bytes, at, path) != 255) {
    throw malformed(path, "its largest value is not 255");
  }
  ++at;
  const std::size_t needed = 3 * static_cast<std::size_t>(width) * static_cast<std::size_t>(height);
  if (bytes.size() - at < needed) {
    throw malformed(path, "its pixels end early");
  }
  Image image{static_cast<int>(width), static_cast<int>(height), {}};
  image.pixels.assign(bytes.data() + at, bytes.data() + at + needed);
  return image;
}

Image from_rgb(const Bytes& pixels, int width, int height) {
  if (pixels.size() != 3 * static_cast<std::size_t>(width) * static_cast<std::size_t>(height)) {
    throw Failure(Code::input, "a golden image has " + std::to_string(pixels.size()) + " bytes, which is not 3 x " +
                                   std::to_string(width) + " x " + std::to_string(height) + "; take the bundle again");
  }
  return Image{width, height, {pixels.data(), pixels.data() + pixels.size()}};
}

}  // namespace cspedge
