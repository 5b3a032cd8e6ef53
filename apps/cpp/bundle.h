#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <map>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

namespace cspedge {

// The content of a file, at an address that suits every runtime (ExecuTorch wants its segments aligned).
class Bytes {
 public:
  explicit Bytes(std::size_t size);
  std::uint8_t* data() { return data_.get(); }
  const std::uint8_t* data() const { return data_.get(); }
  std::size_t size() const { return size_; }
  std::vector<float> floats() const;  // of little-endian float32

 private:
  struct Free {
    void operator()(std::uint8_t* data) const;
  };
  std::unique_ptr<std::uint8_t, Free> data_;
  std::size_t size_;
};

// A file, whole; Failure where it cannot be read.
Bytes read_file(const std::filesystem::path& path);

// SHA-256 in hexadecimal.
std::string sha256(const Bytes& bytes);

// A bundle's folder. What it reads has the digest that the manifest gives; whose manifest it is, `cspedge verify --key`
// tells.
class Bundle {
 public:
  explicit Bundle(std::filesystem::path folder);

  const nlohmann::json& manifest() const { return manifest_; }
  Bytes read(const std::string& path) const;
  std::vector<std::string> labels() const;  // empty where the model has none

  // The artifact TARGET/PRECISION; Failure listing those that there are.
  const nlohmann::json& artifact(const std::string& label) const;
  static std::string label(const nlohmann::json& artifact);

 private:
  std::filesystem::path folder_;
  nlohmann::json manifest_;
  std::map<std::string, std::string> digests_;
};

}  // namespace cspedge
