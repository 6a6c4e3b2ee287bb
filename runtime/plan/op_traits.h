// What kernels.h states about each kernel, as a table: operands, components, and which input the output may
// be. (Internal to runtime/plan and runtime/executor.)
#pragma once

#include <cstdint>

#include "plan/plan_generated.h"

namespace aegis {

struct OpTraits {
  bool a = false, b = false, plain = false;
  bool reduces = false;                         // takes reduced dimensions and `accumulate`
  bool overA = false, overB = false;            // out may be exactly a, b
  uint8_t outComponents = 1, inComponents = 1;  // of a and b; 0: digitCount
  uint8_t weight = 1;                           // rough cost of a row against one addition, for progress
};

// nullptr for Loop, Call, Collective and Wait.
inline const OpTraits* opTraits(plan::Opcode op) {
  static constexpr OpTraits zero{};
  static constexpr OpTraits copy{.a = true, .reduces = true};
  static constexpr OpTraits add{.a = true, .b = true, .overA = true, .overB = true};
  static constexpr OpTraits addPlain{.a = true, .plain = true, .overA = true};
  static constexpr OpTraits contract{.a = true, .plain = true, .reduces = true, .weight = 2};
  static constexpr OpTraits tensor{
      .a = true, .b = true, .reduces = true, .outComponents = 3, .inComponents = 2, .weight = 6};
  static constexpr OpTraits ntt{.a = true, .overA = true, .weight = 8};
  static constexpr OpTraits convert{.a = true, .weight = 2};
  static constexpr OpTraits subScale{.a = true, .b = true, .overA = true, .overB = true, .weight = 2};
  static constexpr OpTraits nttSubScale{.a = true, .b = true, .overB = true, .weight = 10};
  static constexpr OpTraits keyProduct{
      .a = true, .reduces = true, .outComponents = 2, .inComponents = 0, .weight = 4};
  static constexpr OpTraits automorphism{.a = true, .reduces = true, .weight = 2};
  switch (op) {
    case plan::Opcode_Zero: return &zero;
    case plan::Opcode_Copy: return &copy;
    case plan::Opcode_Add: return &add;
    case plan::Opcode_Sub: return &add;
    case plan::Opcode_AddPlain: return &addPlain;
    case plan::Opcode_Contract: return &contract;
    case plan::Opcode_Tensor: return &tensor;
    case plan::Opcode_Ntt: return &ntt;
    case plan::Opcode_Intt: return &ntt;
    case plan::Opcode_BaseConvert: return &convert;
    case plan::Opcode_SubScale: return &subScale;
    case plan::Opcode_NttSubScale: return &nttSubScale;
    case plan::Opcode_KeyProduct: return &keyProduct;
    case plan::Opcode_Automorphism: return &automorphism;
    case plan::Opcode_Loop: return nullptr;
    case plan::Opcode_Call: return nullptr;
    case plan::Opcode_Collective: return nullptr;
    case plan::Opcode_Wait: return nullptr;
  }
  return nullptr;
}

}  // namespace aegis
