// The decoder's state for one function, shared by decode_function.cc (structure, control flow) and
// decode_launch.cc (kernel launches) and decode_exchange.cc (collectives). Internal to runtime/plan.
#pragma once

#include <set>
#include <string>
#include <vector>

#include "plan/decode_function.h"
#include "plan/op_traits.h"

namespace aegis {

class FunctionDecoder {
 public:
  FunctionDecoder(const CheckContext& context, const FunctionPlace& place, const plan::Function& function)
      : context_(context), place_(place), earlier_(place.earlier), source_(function) {}
  CheckedFunction run();

 private:
  using Commands = flatbuffers::Vector<flatbuffers::Offset<plan::Command>>;

  // decode_function.cc
  void buffers();
  void plaintextSlots();
  std::vector<CommandSpec> block(const Commands* commands, uint64_t& rowCost);
  void command(const plan::Command& source, CommandSpec& spec);
  void loop(const plan::Command& source, CommandSpec& spec);
  void call(const plan::Command& source, CommandSpec& spec);
  void checkBindings(const CommandSpec& spec, const CheckedFunction& callee);
  void bindPlaintexts(const plan::Command& source, CommandSpec& spec, const CheckedFunction& callee);
  void usePlaintext(uint32_t slot, std::shared_ptr<const PlainAccess> access);
  void checkAccess(const PlainAccess& access, uint32_t plaintext) const;

  // decode_exchange.cc
  void exchange(const plan::Command& source, CommandSpec& spec);
  void wait(const plan::Command& source, CommandSpec& spec);
  ViewSpec blockView(const plan::View* source, const char* name, uint64_t rows) const;
  void startCollective(const CommandSpec& spec);
  // No command touches the rows of a collective between its start and its end, except to read what it sends.
  void checkOpen(const ViewSpec& view, const CommandSpec& spec, uint64_t components, uint64_t limbs,
                 bool writes);
  void checkOpenCall(const CommandSpec& spec, const CheckedFunction& callee);

  // decode_launch.cc
  void launch(const plan::Command& source, CommandSpec& spec, const OpTraits& traits);
  void shape(const plan::Command& source, CommandSpec& spec, const OpTraits& traits);
  ViewSpec view(const plan::View* source, const char* name, const CommandSpec& spec, uint64_t components,
                uint64_t limbs);
  void dropUnusedStrides(ViewSpec& view, const CommandSpec& spec, uint64_t components, uint64_t limbs) const;
  RowSet rows(const ViewSpec& view, const CommandSpec& spec, uint64_t components, uint64_t limbs) const;
  void checkInside(const ViewSpec& view, const char* name, const CommandSpec& spec, uint64_t components,
                   uint64_t limbs);
  void checkOutput(const CommandSpec& spec, const OpTraits& traits);
  void checkDisjoint(const CommandSpec& spec, const OpTraits& traits, const ViewSpec& in, bool mayBeEqual,
                     const char* name);
  bool sameRows(const CommandSpec& spec, const ViewSpec& x, const ViewSpec& y) const;
  void plainOperand(const plan::Command& source, CommandSpec& spec);
  void baseConvert(const plan::Command& source, CommandSpec& spec);
  void subScale(const plan::Command& source, CommandSpec& spec);
  void keyProduct(const plan::Command& source, CommandSpec& spec);
  void keyRows(CommandSpec& spec, const plan::KeyClass& keyClass, uint32_t level);
  void automorphism(const plan::Command& source, CommandSpec& spec);
  void turns(CommandSpec& spec, int32_t dim, uint32_t perIteration, size_t entries, const char* code);
  uint64_t inLimbs(const CommandSpec& spec) const {
    return spec.op == plan::Opcode_BaseConvert ? spec.sourceLimbs.size() : spec.limbs.size();
  }
  uint64_t inComponents(const CommandSpec& spec, const OpTraits& traits) const {
    return traits.inComponents == 0 ? spec.digitCount : traits.inComponents;
  }

  std::string where() const;
  [[noreturn]] void refuse(const char* code, const std::string& what) const {
    fail(code, where() + ": " + what);
  }
  void require(bool condition, const char* code, const char* what) const {
    if (!condition) refuse(code, what);
  }

  // A collective that was started and not yet waited for.
  struct OpenExchange {
    uint32_t collective;
    size_t depth;  // of loops around it
    size_t block;  // that it was started in, counted from the function's own
    ViewSpec send, receive;
    uint64_t sendRows, receiveRows;
  };
  bool meetsBlock(const OpenExchange& open, bool send, ViewSpec view, const CommandSpec& spec,
                  uint64_t components, uint64_t limbs) const;

  const CheckContext& context_;
  const FunctionPlace& place_;
  const std::vector<CheckedFunction>& earlier_;
  const plan::Function& source_;
  CheckedFunction result_;
  std::vector<uint32_t> trips_;     // of the enclosing loops, outermost first
  std::vector<uint32_t> position_;  // command index at every nesting depth
  std::set<std::pair<uint32_t, const PlainAccess*>> knownUses_;
  std::vector<OpenExchange> open_;
};

}  // namespace aegis
