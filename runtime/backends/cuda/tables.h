// What a rank's commands read besides rows, keys and plaintexts, in one block of device memory: limbs,
// scalars, conversion tables, Galois elements, key views (internal to backends/cuda).
#pragma once

#include <algorithm>
#include <map>
#include <string>
#include <unordered_map>
#include <vector>

#include "backends/cuda/gpu.h"
#include "backends/cuda/residents.h"

namespace aegis {

struct CommandTables {
  const uint16_t* limbs = nullptr;
  const uint64_t* scalars = nullptr;
  const uint16_t* keyRows = nullptr;
  const KeyView* keys = nullptr;
  const uint32_t* galois = nullptr;
  ConversionTable conversion;
};

// The words of an operand, from its base on.
struct PlainExtent {
  ptrdiff_t first = 0;
  uint64_t words = 0;
};
PlainExtent plainExtent(const Launch& launch, const PlainRows& rows);

class ProgramTables {
 public:
  // Nothing is allocated yet, and the residents need not be loaded.
  ProgramTables(const PlanFile& plan, uint32_t rank, const Residents& residents);

  uint64_t bytes() const { return bytes_.size(); }
  // Scratch for coefficients that launches expand: what the largest needs, and more where that lets limbs
  // expand together.
  uint64_t scratchWords() const { return scratchWords_; }
  // The most that one launch reads of what is streamed.
  uint64_t streamedBytes(const Streaming& streaming) const {
    return std::max(streaming.keys ? keyBytes_ : 0, streaming.plaintexts ? plainBytes_ : 0);
  }
  void load(const Gpu& gpu, Stager& stager);  // after the residents

  const CommandTables& operator[](const CommandSpec* command) const { return commands_.at(command); }
  // The pattern of limbs of the rank's part of a reduction: row i has limbs[i % count].
  const uint16_t* limbsOf(const Collective& collective) const { return collectiveLimbs_.at(collective.id); }

 private:
  // Offsets until they are loaded; equal tables are one.
  template <class T>
  const T* put(const T* data, size_t count);
  void add(const std::vector<CommandSpec>& commands);
  void addKeys(const CommandSpec& command, CommandTables& tables);
  void addConversion(const CommandSpec& command, ConversionTable& table);
  void findScratch(uint32_t function, const std::vector<uint32_t>& plaintexts);
  void findScratch(const std::vector<CommandSpec>& commands, const std::vector<uint32_t>& plaintexts);

  const PlanFile& plan_;
  const ProgramSpec& program_;
  const Residents& residents_;
  std::vector<uint8_t> bytes_;
  std::unordered_map<std::string, size_t> offsets_;  // by contents
  std::unordered_map<const CommandSpec*, CommandTables> commands_;
  std::map<std::pair<std::vector<uint32_t>, uint32_t>, size_t> keys_;  // keys and first digit -> offset
  std::unordered_map<uint32_t, const uint16_t*> collectiveLimbs_;
  std::map<std::pair<uint32_t, std::vector<uint32_t>>, bool> visited_;
  uint64_t scratchWords_ = 0, keyBytes_ = 0, plainBytes_ = 0;
  CudaHandle block_;
};

}  // namespace aegis
