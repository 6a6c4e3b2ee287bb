// The weights that recipes read, by name: original float values, row-major.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "io/safetensors.h"
#include "support/error.h"

namespace aegis {

struct WeightTensor {
  std::vector<uint64_t> shape;
  std::vector<double> data;
};

class Weights {
 public:
  virtual ~Weights() = default;
  // nullptr if there is no such tensor. Tensors are asked for one at a time and not kept.
  virtual std::shared_ptr<const WeightTensor> load(const std::string& name) const = 0;
};

// Weights in memory.
class WeightMap : public Weights {
 public:
  std::map<std::string, WeightTensor> tensors;
  std::shared_ptr<const WeightTensor> load(const std::string& name) const override {
    const auto found = tensors.find(name);
    return found == tensors.end() ? nullptr : std::make_shared<const WeightTensor>(found->second);
  }
};

// A weights file (F32 or F64 tensors; R109 for others). Keeps a reference.
class SafeTensorsWeights : public Weights {
 public:
  explicit SafeTensorsWeights(const SafeTensors& file) : file_(file) {}
  std::shared_ptr<const WeightTensor> load(const std::string& name) const override {
    const TensorInfo* info = file_.find(name);
    if (info == nullptr) return nullptr;
    auto tensor = std::make_shared<WeightTensor>();
    tensor->shape.assign(info->shape.begin(), info->shape.end());
    if (info->dtype == Dtype::kF64) {
      tensor->data = file_.readAll<double>(*info);
    } else if (info->dtype == Dtype::kF32) {
      const std::vector<float> values = file_.readAll<float>(*info);
      tensor->data.assign(values.begin(), values.end());
    } else {
      fail("R109", "weight " + name + " has type " + dtypeName(info->dtype) + " but must be F32 or F64");
    }
    return tensor;
  }

 private:
  const SafeTensors& file_;
};

}  // namespace aegis
