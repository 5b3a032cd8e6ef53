// Runs a list of jobs through apps/cpp's preprocessing, as the check programs of the Swift and Kotlin cores do.
#include <fstream>
#include <iostream>
#include <nlohmann/json.hpp>

#include "bundle.h"
#include "failure.h"
#include "image.h"
#include "preprocess.h"

int main(int argc, char** argv) {
  const cspedge::Bytes text = cspedge::read_file(argc == 2 ? argv[1] : "jobs.json");
  for (const auto& job : nlohmann::json::parse(text.data(), text.data() + text.size())) {
    nlohmann::json answer;
    try {
      const std::string rgb = job.at("rgb");
      const auto image = cspedge::from_rgb(cspedge::read_file(rgb), job.at("width"), job.at("height"));
      const auto tensor = cspedge::tensor(image, job.at("preprocess"));
      std::ofstream file(job.at("out").get<std::string>(), std::ios::binary);
      file.write(reinterpret_cast<const char*>(tensor.data()), static_cast<std::streamsize>(tensor.size()));
      answer = {{"bytes", tensor.size()}};
    } catch (const cspedge::Failure& failure) {
      answer = {{"code", failure.code()}, {"message", failure.what()}};
    }
    std::cout << answer.dump() << "\n";
  }
}
