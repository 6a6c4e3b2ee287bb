// A small plan for tests of the client and of the readers: logN 10, INSECURE, every kind of key, one input port "x"
// [2, 40] and two output ports, y = x + x and z = x + x again, so that responses hold several tensors.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "plan/plan_generated.h"

namespace aegis::test {

struct FixtureOptions {
  uint32_t logN = 10;
  bool insecure = true;
  uint32_t sparseSpecialBits = 50;  // of the first special prime
  uint32_t sparseLevel = 0;         // level of the class of the key to the sparse secret
  double bound = 0;                 // of the input
};

// The bytes of the plan; `weights` gets those of its weights file (empty safetensors).
std::vector<uint8_t> makeFixturePlan(const FixtureOptions& options = {});

// Index into Plan.keys of the first key of this kind and Galois element.
uint32_t findKey(const plan::Plan& plan, plan::KeyKind kind, uint32_t galois = 0);

}  // namespace aegis::test
