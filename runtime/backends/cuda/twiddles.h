// Moving an NTT table to where kernels read it.
#pragma once

#include "ckks/tables.h"

namespace aegis::cuda {

// Arrays of N words in a table that kernels read.
constexpr uint32_t twiddleArrays(TwiddleForm form) { return form == TwiddleForm::kCentred ? 2 : 4; }

// put(array) gives the copy of an array, const uint64_t* or const double*.
template <class Put>
void moveTwiddles(NttTable& table, const Put& put) {
  const auto move = [&](auto& words) {
    words.forward = put(words.forward);
    words.inverse = put(words.inverse);
    if (words.forwardCompanion == nullptr) return;
    words.forwardCompanion = put(words.forwardCompanion);
    words.inverseCompanion = put(words.inverseCompanion);
  };
  if (table.form == TwiddleForm::kCentred) move(table.floats);
  else move(table.words);
}

}  // namespace aegis::cuda
