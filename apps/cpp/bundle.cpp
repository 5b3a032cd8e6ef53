#include "bundle.h"

#include <openssl/evp.h>

#include <cstdlib>
#include <cstring>
#include <fstream>
#include <sstream>

#include "failure.h"

namespace cspedge {

namespace {

constexpr std::size_t kAlignment = 4096;  // a page, as if it had been mapped
constexpr int kSchema = 1;

}  // namespace

std::string sha256(const Bytes& bytes) {
  unsigned char digest[EVP_MAX_MD_SIZE];
  unsigned int size = 0;
  if (EVP_Digest(bytes.data(), bytes.size(), digest, &size, EVP_sha256(), nullptr) != 1) {
    throw Failure(Code::missing, "OpenSSL has no SHA-256 on this machine");
  }
  static const char* hex = "0123456789abcdef";
  std::string text;
  for (unsigned int i = 0; i < size; ++i) {
    text += hex[digest[i] >> 4];
    text += hex[digest[i] & 15];
  }
  return text;
}

Bytes::Bytes(std::size_t size) : size_(size) {
  const std::size_t rounded = (size / kAlignment + 1) * kAlignment;
  data_.reset(static_cast<std::uint8_t*>(std::aligned_alloc(kAlignment, rounded)));
  if (!data_) {
    throw Failure(Code::input, "there is no memory for " + std::to_string(size) + " bytes");
  }
}

void Bytes::Free::operator()(std::uint8_t* data) const { std::free(data); }

std::vector<float> Bytes::floats() const {
  std::vector<float> values(size_ / sizeof(float));
  std::memcpy(values.data(), data_.get(), values.size() * sizeof(float));
  return values;
}

Bytes read_file(const std::filesystem::path& path) {
  std::error_code error;
  const auto size = std::filesystem::file_size(path, error);
  std::ifstream file(path, std::ios::binary);
  if (error || !file) {
    throw Failure(Code::input, path.string() + " cannot be read; give the folder of a bundle, or a file that is there");
  }
  Bytes bytes(size);
  file.read(reinterpret_cast<char*>(bytes.data()), static_cast<std::streamsize>(size));
  if (static_cast<std::size_t>(file.gcount()) != size) {
    throw Failure(Code::input, path.string() + " changed while it was read; take the bundle again");
  }
  return bytes;
}

Bundle::Bundle(std::filesystem::path folder) : folder_(std::move(folder)) {
  const Bytes text = read_file(folder_ / "manifest.json");
  try {
    manifest_ = nlohmann::json::parse(text.data(), text.data() + text.size());
    if (manifest_.at("schema") != kSchema) {
      throw Failure(Code::input, "the bundle's schema is " + manifest_.at("schema").dump() + " and this program knows " +
                                     std::to_string(kSchema) + "; build the one of the bundle's own cpp/ folder");
    }
    for (const auto& file : manifest_.at("files")) {
      digests_[file.at("path")] = file.at("sha256");
    }
  } catch (const nlohmann::json::exception& error) {
    throw Failure(Code::input, "manifest.json is damaged (" + std::string(error.what()) + "); take the bundle again");
  }
}

Bytes Bundle::read(const std::string& path) const {
  const auto found = digests_.find(path);
  if (found == digests_.end()) {
    throw Failure(Code::input, path + " is not in the manifest; take the bundle again");
  }
  Bytes bytes = read_file(folder_ / path);
  if (sha256(bytes) != found->second) {
    throw Failure(Code::input, path + " was changed; take the bundle again");
  }
  return bytes;
}

std::vector<std::string> Bundle::labels() const {
  const auto& path = manifest_.at("model").at("labels");
  std::vector<std::string> lines;
  if (!path.is_null()) {
    const Bytes bytes = read(path);
    std::istringstream text(std::string(bytes.data(), bytes.data() + bytes.size()));
    for (std::string line; std::getline(text, line);) {
      lines.push_back(line);
    }
  }
  return lines;
}

const nlohmann::json& Bundle::artifact(const std::string& wanted) const {
  std::string known;
  for (const auto& artifact : manifest_.at("artifacts")) {
    if (label(artifact) == wanted) {
      return artifact;
    }
    known += (known.empty() ? "" : ", ") + label(artifact);
  }
  throw Failure(Code::usage, "unknown artifact '" + wanted + "'; known: " + known);
}

std::string Bundle::label(const nlohmann::json& artifact) {
  return artifact.at("target").get<std::string>() + "/" + artifact.at("precision").get<std::string>();
}

}  // namespace cspedge
