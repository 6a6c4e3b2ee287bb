// The evaluation keys of a plan, resident in memory as the kernels read them.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "client/context.h"
#include "hal/kernels.h"

namespace aegis {

class EvalKeys {
 public:
  // Loads every key that the plan names; other keys of the file are skipped. The stored halves are read in
  // place, the uniform halves expanded from the seed. Errors: those of SafeTensors::open and checkMetadata;
  // R304 a key of the plan is missing; R109 it has another shape; R302 a residue is not below its prime; R501
  // not enough memory.
  static EvalKeys open(const std::string& path, const plan::Plan& plan, uint32_t threads,
                       const Progress& progress);
  // rows: by key, the rows to load (PlanFile::keyRowsOf); all keys in full if null. Every key of the plan
  // must be in the file all the same.
  static EvalKeys open(const std::string& path, const ClientParameters& parameters, ThreadPool& pool,
                       const Progress& progress, const std::vector<std::vector<uint16_t>>* rows = nullptr);

  // By index into Plan.keys: [digit][component 0 = b, 1 = a][row][N]. No base where no row was asked for.
  KeyView view(uint32_t planKeyIndex) const;
  uint32_t count() const { return uint32_t(views_.size()); }
  size_t bytes() const { return bytes_; }
  const std::string& keyId() const { return keyId_; }

 private:
  struct Unmap {
    size_t bytes;
    void operator()(uint64_t* data) const;
  };
  using Memory = std::unique_ptr<uint64_t, Unmap>;
  void allocate(size_t bytes);
  void addView(const KeySpec& key, const std::vector<uint16_t>& rows, const uint64_t* base);

  Memory memory_;
  std::vector<KeyView> views_;
  std::vector<std::unique_ptr<uint16_t[]>> places_;  // KeyView::rowOf
  size_t bytes_ = 0;
  std::string keyId_;
};

}  // namespace aegis
