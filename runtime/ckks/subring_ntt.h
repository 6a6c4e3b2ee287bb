// The negacyclic NTT of a subring: polynomials in X^(N / words), words below N.
#pragma once

#include <cstddef>
#include <cstdint>

#include "ckks/modulus.h"
#include "ckks/tables.h"

namespace aegis {

// In place on canonical residues. `table` is the whole ring's, of form kShoup64: the root is psi^(N / words),
// and its bit-reversed twiddles are the table's first `words` entries, since psi^(N/words * brv_words(k)) =
// psi^brv_N(k) for k < words.
inline void subringNtt(uint64_t* row, uint32_t words, const NttTable& table) {
  const uint64_t q = table.prime.q;
  for (uint32_t blocks = 1, half = words / 2; blocks < words; blocks *= 2, half /= 2) {
    for (uint32_t i = 0; i < blocks; i++) {
      const uint64_t w = table.words.forward[blocks + i],
                     companion = table.words.forwardCompanion[blocks + i];
      uint64_t* low = row + size_t(2) * i * half;
      for (uint32_t k = 0; k < half; k++) {
        const uint64_t u = low[k], v = mulShoup(low[k + half], w, companion, q);
        low[k] = addMod(u, v, q);
        low[k + half] = subMod(u, v, q);
      }
    }
  }
}

}  // namespace aegis
