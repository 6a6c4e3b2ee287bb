// One kernel launch: operands inside of their buffers at every index, limb and iteration, no forbidden
// aliasing, and everything else that kernels.h takes for granted.
#include <algorithm>
#include <numeric>

#include "plan/function_decoder.h"

namespace aegis {
namespace {

template <class T>
uint32_t sizeOf(const flatbuffers::Vector<T>* vector) {
  return vector == nullptr ? 0 : vector->size();
}

}  // namespace

void FunctionDecoder::launch(const plan::Command& source, CommandSpec& spec, const OpTraits& traits) {
  shape(source, spec, traits);
  switch (spec.op) {
    case plan::Opcode_BaseConvert: baseConvert(source, spec); break;
    case plan::Opcode_SubScale:
    case plan::Opcode_NttSubScale: subScale(source, spec); break;
    case plan::Opcode_KeyProduct: keyProduct(source, spec); break;
    case plan::Opcode_Automorphism: automorphism(source, spec); break;
    default: break;  // the others have no fields of their own
  }
  const uint64_t limbs = inLimbs(spec), components = inComponents(spec, traits);
  spec.out = view(source.out(), "out", spec, traits.outComponents, spec.limbs.size());
  if (traits.a) spec.a = view(source.a(), "a", spec, components, limbs);
  if (traits.b) spec.b = view(source.b(), "b", spec, components, limbs);
  checkInside(spec.out, "out", spec, traits.outComponents, spec.limbs.size());
  if (traits.a) checkInside(spec.a, "a", spec, components, limbs);
  if (traits.b) checkInside(spec.b, "b", spec, components, limbs);
  checkOutput(spec, traits);
  if (traits.a) checkDisjoint(spec, traits, spec.a, traits.overA, "a");
  if (traits.b) checkDisjoint(spec, traits, spec.b, traits.overB, "b");
  checkOpen(spec.out, spec, traits.outComponents, spec.limbs.size(), true);
  if (traits.a) checkOpen(spec.a, spec, components, limbs, false);
  if (traits.b) checkOpen(spec.b, spec, components, limbs, false);
  if (traits.plain) plainOperand(source, spec);
  const BufferSpec& buffer = result_.spec.buffers[spec.out.buffer];
  if (buffer.argument) result_.written[spec.out.buffer] = true;

  int128 elements = 1, kept = 1;
  for (uint32_t d = 0; d < spec.rank; d++) {
    elements *= spec.dims[d];
    if (d < spec.rank - spec.reduceRank) kept *= spec.dims[d];
  }
  const int128 inputs = elements * components * limbs * (int(traits.a) + int(traits.b));
  spec.rowsMoved = uint64_t(kept * traits.outComponents * int128(spec.limbs.size()) + inputs);
  const int128 perLimb =
      spec.op == plan::Opcode_BaseConvert ? int128(spec.sourceLimbs.size()) : int128(components);
  const int128 cost = elements * perLimb * int128(spec.limbs.size()) * traits.weight;
  if (cost > int128(kMaxRowCost)) refuse("R243", "the plan would never come to its end");
  spec.rowCost = std::max<uint64_t>(uint64_t(cost), 1);
}

void FunctionDecoder::shape(const plan::Command& source, CommandSpec& spec, const OpTraits& traits) {
  spec.rank = sizeOf(source.dims());
  spec.reduceRank = source.reduce_rank();
  spec.accumulate = source.accumulate();
  if (spec.rank > kMaxRank) refuse("R231", std::to_string(spec.rank) + " batch dimensions");
  require(spec.reduceRank <= spec.rank, "R231", "more reduced dimensions than dimensions");
  require(traits.reduces || (spec.reduceRank == 0 && !spec.accumulate), "R231",
          "this command neither sums nor accumulates");
  uint64_t elements = 1;
  for (uint32_t d = 0; d < spec.rank; d++) {
    spec.dims[d] = source.dims()->Get(d);
    require(spec.dims[d] >= 1, "R231", "a dimension of size 0");
    if (elements > kMaxLaunchElements / spec.dims[d]) refuse("R231", "too many elements in one launch");
    elements *= spec.dims[d];
  }
  const uint32_t limbs = sizeOf(source.limbs());
  require(limbs >= 1 && limbs <= context_.ring.primeCount(), "R231",
          "no limbs, or more than there are primes");
  context_.budget.charge(limbs);
  std::vector<bool> seen(context_.ring.primeCount(), false);
  for (const uint16_t limb : *source.limbs()) {
    if (limb >= context_.ring.primeCount())
      refuse("R231", "limb " + std::to_string(limb) + " is no prime of the plan");
    if (seen[limb]) refuse("R231", "limb " + std::to_string(limb) + " occurs twice");
    seen[limb] = true;
    spec.limbs.push_back(limb);
  }
}

ViewSpec FunctionDecoder::view(const plan::View* source, const char* name, const CommandSpec& spec,
                               uint64_t components, uint64_t limbs) {
  if (source == nullptr) refuse("R232", std::string("operand ") + name + " is missing");
  ViewSpec view;
  view.buffer = source->buffer();
  if (source->offset() > kMaxRows)
    refuse("R232", std::string("operand ") + name + " starts outside of its buffer");
  view.offset = int64_t(source->offset());
  if (sizeOf(source->strides()) > spec.rank || sizeOf(source->loop_strides()) > trips_.size())
    refuse("R232", std::string("operand ") + name + " has more strides than dimensions");
  for (uint32_t d = 0; d < sizeOf(source->strides()); d++) view.strides[d] = source->strides()->Get(d);
  for (uint32_t k = 0; k < sizeOf(source->loop_strides()); k++)
    view.loopStrides.push_back(source->loop_strides()->Get(k));
  view.componentStride = source->component_stride();
  view.limbStride = source->limb_stride();
  dropUnusedStrides(view, spec, components, limbs);
  // Bounded before anything is computed with them.
  const auto bounded = [](int64_t stride) {
    return stride >= -int64_t(kMaxRows) && stride <= int64_t(kMaxRows);
  };
  if (!std::all_of(view.strides, view.strides + spec.rank, bounded) || !bounded(view.componentStride) ||
      !bounded(view.limbStride) || !std::all_of(view.loopStrides.begin(), view.loopStrides.end(), bounded))
    refuse("R232", std::string("operand ") + name + " has a stride beyond any buffer");
  return view;
}

// A stride that no second index multiplies means nothing; without it the remaining ones are bounded by the
// buffer.
void FunctionDecoder::dropUnusedStrides(ViewSpec& view, const CommandSpec& spec, uint64_t components,
                                        uint64_t limbs) const {
  for (uint32_t d = 0; d < spec.rank; d++)
    if (spec.dims[d] == 1) view.strides[d] = 0;
  if (components == 1) view.componentStride = 0;
  if (limbs == 1) view.limbStride = 0;
  view.loopStrides.resize(trips_.size(), 0);
  for (size_t k = 0; k < trips_.size(); k++)
    if (trips_[k] == 1) view.loopStrides[k] = 0;
}

// Rows of one iteration, relative to the buffer.
RowSet FunctionDecoder::rows(const ViewSpec& view, const CommandSpec& spec, uint64_t components,
                             uint64_t limbs) const {
  RowSet set(view.offset);
  for (uint32_t d = 0; d < spec.rank; d++) set.add(spec.dims[d], view.strides[d]);
  set.add(components, view.componentStride);
  set.add(limbs, view.limbStride);
  return set;
}

void FunctionDecoder::checkInside(const ViewSpec& view, const char* name, const CommandSpec& spec,
                                  uint64_t components, uint64_t limbs) {
  if (view.buffer >= result_.spec.buffers.size())
    refuse("R232", std::string("operand ") + name + " names buffer " + std::to_string(view.buffer));
  RowSet set = rows(view, spec, components, limbs);
  for (size_t k = 0; k < trips_.size(); k++) set.add(trips_[k], view.loopStrides[k]);
  if (set.first() < 0 || set.last() >= int128(result_.spec.buffers[view.buffer].rows))
    refuse("R232", std::string("operand ") + name + " leaves buffer " + std::to_string(view.buffer) + " of " +
                       std::to_string(result_.spec.buffers[view.buffer].rows) + " rows");
}

// Each output row is written by one index only; reduced dimensions do not move the output.
void FunctionDecoder::checkOutput(const CommandSpec& spec, const OpTraits& traits) {
  RowSet set(spec.out.offset);
  for (uint32_t d = 0; d < spec.rank; d++) {
    if (d < spec.rank - spec.reduceRank)
      set.add(spec.dims[d], spec.out.strides[d]);
    else
      require(spec.out.strides[d] == 0, "R231", "the output moves along a summed dimension");
  }
  set.add(traits.outComponents, spec.out.componentStride);
  set.add(spec.limbs.size(), spec.out.limbStride);
  require(set.isInjective(context_.budget), "R233", "the output writes a row twice");
}

bool FunctionDecoder::sameRows(const CommandSpec& spec, const ViewSpec& x, const ViewSpec& y) const {
  const BufferSpec& bufferX = result_.spec.buffers[x.buffer];
  const BufferSpec& bufferY = result_.spec.buffers[y.buffer];
  return int64_t(bufferX.offset) + x.offset == int64_t(bufferY.offset) + y.offset &&
         std::equal(x.strides, x.strides + spec.rank, y.strides) && x.componentStride == y.componentStride &&
         x.limbStride == y.limbStride && x.loopStrides == y.loopStrides;
}

// The output shares no row with the input in any iteration, unless it is exactly the input and may be.
void FunctionDecoder::checkDisjoint(const CommandSpec& spec, const OpTraits& traits, const ViewSpec& in,
                                    bool mayBeEqual, const char* name) {
  const BufferSpec& outBuffer = result_.spec.buffers[spec.out.buffer];
  const BufferSpec& inBuffer = result_.spec.buffers[in.buffer];
  if (outBuffer.argument != inBuffer.argument) return;
  if (outBuffer.argument && spec.out.buffer != in.buffer) return;
  if (mayBeEqual && sameRows(spec, spec.out, in)) return;
  ViewSpec out = spec.out, other = in;
  out.offset += int64_t(outBuffer.offset);
  other.offset += int64_t(inBuffer.offset);
  RowSet outRows = rows(out, spec, traits.outComponents, spec.limbs.size());
  const RowSet inRows = rows(other, spec, inComponents(spec, traits), inLimbs(spec));
  // Both move with the loops: what counts is how they move against each other.
  for (size_t k = 0; k < trips_.size(); k++)
    outRows.add(trips_[k], out.loopStrides[k] - other.loopStrides[k]);
  if (RowSet::meet(outRows, inRows, context_.budget))
    refuse("R233", std::string("the output overlaps operand ") + name);
}

void FunctionDecoder::plainOperand(const plan::Command& source, CommandSpec& spec) {
  spec.plain = view(source.plain(), "plain", spec, 1, spec.limbs.size());
  if (spec.plain.buffer >= result_.spec.plaintexts.size())
    refuse("R239", "plaintext slot " + std::to_string(spec.plain.buffer));
  RowSet set = rows(spec.plain, spec, 1, spec.limbs.size());
  for (size_t k = 0; k < trips_.size(); k++) set.add(trips_[k], spec.plain.loopStrides[k]);
  auto access = std::make_shared<PlainAccess>();
  access->where = where();
  access->firstRow = set.first();
  access->lastRow = set.last();
  access->offset = spec.plain.offset;
  access->limbStride = spec.plain.limbStride;
  access->limbs = spec.limbs;
  for (uint32_t d = 0; d < spec.rank; d++)
    access->strideDivisor = std::gcd(access->strideDivisor, spec.plain.strides[d]);
  for (const int64_t stride : spec.plain.loopStrides)
    access->strideDivisor = std::gcd(access->strideDivisor, stride);
  usePlaintext(spec.plain.buffer, std::move(access));
}

void FunctionDecoder::baseConvert(const plan::Command& source, CommandSpec& spec) {
  const uint32_t count = sizeOf(source.source_limbs());
  require(count >= 1 && count <= context_.ring.primeCount(), "R238",
          "no source limbs, or more than there are primes");
  context_.budget.charge(count);
  std::vector<bool> seen(context_.ring.primeCount(), false);
  for (const uint16_t limb : *source.source_limbs()) {
    if (limb >= context_.ring.primeCount() || seen[limb])
      refuse("R238", "source limb " + std::to_string(limb));
    seen[limb] = true;
    spec.sourceLimbs.push_back(limb);
  }
}

void FunctionDecoder::subScale(const plan::Command& source, CommandSpec& spec) {
  require(sizeOf(source.scalars()) == spec.limbs.size(), "R238", "not one scalar for each limb");
  context_.budget.charge(spec.limbs.size());
  for (uint32_t j = 0; j < spec.limbs.size(); j++) {
    spec.scalars.push_back(source.scalars()->Get(j));
    require(spec.scalars[j] < context_.ring.modulus(spec.limbs[j]), "R238",
            "a scalar that is not below its prime");
  }
}

// Entries i + iteration * perIteration for every index i of the dimension and iteration of the innermost
// loop.
void FunctionDecoder::turns(CommandSpec& spec, int32_t dim, uint32_t perIteration, size_t entries,
                            const char* code) {
  if (dim < -1 || dim >= int32_t(spec.rank))
    refuse(code, "dimension " + std::to_string(dim) + " of keys or rotations");
  spec.turnDim = dim < 0 ? ~0u : uint32_t(dim);
  spec.turnsPerIteration = trips_.empty() ? 0 : perIteration;
  const int128 iterations = trips_.empty() ? 1 : trips_.back();
  const int128 needed = (iterations - 1) * spec.turnsPerIteration + (dim < 0 ? 1 : spec.dims[dim]);
  if (needed > int128(entries)) refuse(code, std::to_string(entries) + " keys or rotations are too few");
}

void FunctionDecoder::keyProduct(const plan::Command& source, CommandSpec& spec) {
  const auto& keys = *context_.plan.keys();
  const uint32_t count = sizeOf(source.keys());
  turns(spec, source.key_dim(), source.keys_per_iteration(), count, "R236");
  context_.budget.charge(count);
  for (uint32_t i = 0; i < count; i++) {
    const uint32_t key = source.keys()->Get(i);
    if (key >= keys.size())
      refuse("R236", "key " + std::to_string(key) + " of " + std::to_string(keys.size()));
    require(keys.Get(key)->key_class() == keys.Get(source.keys()->Get(0))->key_class(), "R236",
            "keys of two classes");
    spec.keys.push_back(key);
  }
  const plan::KeyClass& keyClass =
      *context_.plan.parameters()->key_classes()->Get(keys.Get(spec.keys[0])->key_class());
  uint32_t level = keyClass.level();
  for (const uint32_t key : spec.keys) level = std::min<uint32_t>(level, keys.Get(key)->level());
  spec.firstDigit = source.first_digit();
  spec.digitCount = source.digit_count();
  keyRows(spec, keyClass, level);
}

// Key rows: the class's special primes, then q_0..q_level (kernels.h, KeyView). `level` is the lowest of the
// keys.
void FunctionDecoder::keyRows(CommandSpec& spec, const plan::KeyClass& keyClass, uint32_t level) {
  const uint32_t maxLevel = context_.plan.parameters()->max_level();
  uint32_t top = 0;
  for (const uint16_t limb : spec.limbs) {
    const bool special = limb > maxLevel;
    const uint32_t index = special ? limb - maxLevel - 1 : limb;
    if (special ? index >= keyClass.specials() : index > level)
      refuse("R236", "limb " + std::to_string(limb) + " is none of a key of class " + keyClass.name()->str()
                         + " at level " + std::to_string(level));
    if (!special) top = std::max(top, index);
    spec.keyRows.push_back(uint16_t(special ? index : keyClass.specials() + index));
    context_.budget.charge(spec.keys.size());
    for (const uint32_t key : spec.keys) {
      const std::vector<bool>& held = place_.held[key];
      if (spec.keyRows.back() >= held.size() || !held[spec.keyRows.back()])
        refuse("R236", "limb " + std::to_string(limb) + " of key " + std::to_string(key) +
                           " is not in the rank's part of it");
    }
  }
  // A rank may take some digits only.
  const uint32_t most = keyDigitCount(keyClass, level);
  if (spec.digitCount == 0 || spec.firstDigit > most || spec.digitCount > most - spec.firstDigit)
    refuse("R236", "digits " + std::to_string(spec.firstDigit) + " to " +
                       std::to_string(uint64_t(spec.firstDigit) + spec.digitCount - 1) + " of " +
                       std::to_string(most));
}

void FunctionDecoder::automorphism(const plan::Command& source, CommandSpec& spec) {
  const uint32_t count = sizeOf(source.galois());
  turns(spec, source.galois_dim(), source.galois_per_iteration(), count, "R237");
  context_.budget.charge(count);
  for (uint32_t i = 0; i < count; i++) {
    const uint32_t galois = source.galois()->Get(i);
    if (galois % 2 == 0 || galois >= 2 * context_.ring.degree())
      refuse("R237", "Galois element " + std::to_string(galois));
    spec.galois.push_back(galois);
  }
}

}  // namespace aegis
