#pragma once

#include <cstdint>
#include <nlohmann/json.hpp>
#include <vector>

#include "image.h"

namespace cspedge {

// The contract of a manifest, `preprocess`: RGB of any size to uint8 [3, H, W], equal in every byte to the pipeline's.
// Failure for an image without pixels or with more than the contract allows.
std::vector<std::uint8_t> tensor(const Image& image, const nlohmann::json& contract);

// What the model takes: x / 255 in float32.
std::vector<float> input(const std::vector<std::uint8_t>& tensor);

}  // namespace cspedge
