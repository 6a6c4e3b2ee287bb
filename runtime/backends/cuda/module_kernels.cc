#include "backends/cuda/module_kernels.h"

#include <algorithm>
#include <cstring>

#include "backends/cuda/launches.h"
#include "backends/cuda/twiddles.h"
#include "ckks/ring.h"
#include "support/error.h"

namespace aegis {
namespace {

constexpr size_t kChunkBytes = size_t(16) << 20;
constexpr size_t kAlignment = 256;

ModuleKernels* activeKernels = nullptr;

template <class Call>
void launched(const RingContext& ring, const Launch& launch, bool transforms, const Call& call) {
  ModuleKernels& m = ModuleKernels::active();
  const AegisCudaLaunch on = m.on(ring, launch, transforms);
  m.check(call(m, m.api(), &on));
}

void zero(const RingContext& ring, ThreadPool&, const Launch& launch, Rows out) {
  launched(ring, launch, false,
           [&](auto&, const AegisCuda& api, const AegisCudaLaunch* on) { return api.zero(on, &out); });
}

template <auto AegisCuda::* entry, bool transforms>
void unary(const RingContext& ring, ThreadPool&, const Launch& launch, Rows out, Rows a) {
  launched(ring, launch, transforms, [&](auto&, const AegisCuda& api, const AegisCudaLaunch* on) {
    return (api.*entry)(on, &out, &a);
  });
}

template <auto AegisCuda::* entry>
void binary(const RingContext& ring, ThreadPool&, const Launch& launch, Rows out, Rows a, Rows b) {
  launched(ring, launch, false, [&](auto&, const AegisCuda& api, const AegisCudaLaunch* on) {
    return (api.*entry)(on, &out, &a, &b);
  });
}

template <auto AegisCuda::* entry>
void withPlain(const RingContext& ring, ThreadPool&, const Launch& launch, Rows out, Rows a, PlainRows p) {
  launched(ring, launch, p.coefficients,
           [&](ModuleKernels& m, const AegisCuda& api, const AegisCudaLaunch* on) {
             const cuda::Scratch scratch = m.scratch(launch, p);
             return (api.*entry)(on, &out, &a, &p, &scratch);
           });
}

template <auto AegisCuda::* entry, bool transforms>
void scaled(const RingContext& ring, ThreadPool&, const Launch& launch, Rows out, Rows a, Rows b,
            const uint64_t* scalars) {
  launched(ring, launch, transforms, [&](ModuleKernels& m, const AegisCuda& api, const AegisCudaLaunch* on) {
    return (api.*entry)(on, &out, &a, &b, m.keep(scalars, launch.limbCount));
  });
}

void baseConvert(const RingContext& ring, ThreadPool&, const Launch& launch, Rows out, Rows a,
                 const uint16_t* sourceLimbs, uint32_t sourceCount) {
  const ConversionTable& table = ring.conversion(sourceLimbs, sourceCount, launch.limbs, launch.limbCount);
  launched(ring, launch, false, [&](ModuleKernels& m, const AegisCuda& api, const AegisCudaLaunch* on) {
    const ConversionTable kept = m.conversion(table);
    return api.baseConvert(on, &out, &a, &kept);
  });
}

void keyProduct(const RingContext& ring, ThreadPool&, const Launch& launch, Rows out, Rows digits,
                uint32_t digitCount, const KeyView* keys, uint32_t keyDim, const uint16_t* keyRows) {
  launched(ring, launch, false, [&](ModuleKernels& m, const AegisCuda& api, const AegisCudaLaunch* on) {
    const uint16_t lastRow = *std::max_element(keyRows, keyRows + launch.limbCount);
    std::vector<KeyView> views(keys, keys + (keyDim == ~0u ? 1 : launch.dims[keyDim]));
    for (KeyView& view : views)
      if (view.rowOf != nullptr) view.rowOf = m.keep(view.rowOf, size_t(lastRow) + 1);
    return api.keyProduct(on, &out, &digits, digitCount, m.keep(views.data(), views.size()), keyDim,
                          m.keep(keyRows, launch.limbCount));
  });
}

void automorphism(const RingContext& ring, ThreadPool&, const Launch& launch, Rows out, Rows a,
                  const uint32_t* galois, uint32_t galoisDim) {
  launched(ring, launch, false, [&](ModuleKernels& m, const AegisCuda& api, const AegisCudaLaunch* on) {
    const size_t count = galoisDim == ~0u ? 1 : launch.dims[galoisDim];
    return api.automorphism(on, &out, &a, m.keep(galois, count), galoisDim);
  });
}

// What channels sum with on a GPU.
void sumRows(uint64_t* out, const uint64_t* const* rows, size_t count, size_t words, const Prime& prime) {
  ModuleKernels& m = ModuleKernels::active();
  AEGIS_INVARIANT(count <= cuda::kMaxBlocks && words % 16 == 0);
  const uint16_t limb = 0;
  const cuda::ReduceRowsJob job = cuda::sumJob(out, rows, count, words, m.keep(&prime, 1), m.keep(&limb, 1));
  m.check(m.api().runtime->reduceRows(m.stream(), &job));
}

constexpr KernelTable kDeviceTable = {"cuda",
                                      zero,
                                      unary<&AegisCuda::copy, false>,
                                      binary<&AegisCuda::add>,
                                      binary<&AegisCuda::sub>,
                                      withPlain<&AegisCuda::addPlain>,
                                      withPlain<&AegisCuda::contract>,
                                      binary<&AegisCuda::tensor>,
                                      unary<&AegisCuda::ntt, true>,
                                      unary<&AegisCuda::intt, true>,
                                      baseConvert,
                                      scaled<&AegisCuda::subScale, false>,
                                      scaled<&AegisCuda::nttSubScale, true>,
                                      keyProduct,
                                      automorphism,
                                      sumRows};

}  // namespace

ModuleKernels::ModuleKernels(const AegisCuda& api, uint32_t device) : api_(api) {
  AEGIS_INVARIANT(activeKernels == nullptr);
  check(api_.useDevice(device));
  check(api_.createStream(&stream_));
  activeKernels = this;
}

ModuleKernels::~ModuleKernels() {
  activeKernels = nullptr;
  api_.synchronise(stream_);
  for (void* chunk : chunks_) api_.release(chunk);
  if (scratch_.base != nullptr) api_.release(scratch_.base);
  api_.destroyStream(stream_);
}

ModuleKernels& ModuleKernels::active() {
  AEGIS_INVARIANT(activeKernels != nullptr);
  return *activeKernels;
}

const KernelTable& ModuleKernels::deviceTable() { return kDeviceTable; }

void ModuleKernels::check(const char* problem) const {
  if (problem != nullptr) fail("R408", std::string("the GPU failed: ") + problem, "see what nvidia-smi says");
}

uint64_t* ModuleKernels::allocate(uint64_t words) {
  void* memory = nullptr;
  check(api_.allocate(words * sizeof(uint64_t), &memory));
  return static_cast<uint64_t*>(memory);
}

void ModuleKernels::release(uint64_t* words) { check(api_.release(words)); }

void ModuleKernels::upload(uint64_t* to, const uint64_t* from, uint64_t words) {
  check(api_.copyBytes(to, from, words * sizeof(uint64_t), stream_));
}

void ModuleKernels::download(uint64_t* to, const uint64_t* from, uint64_t words) {
  check(api_.copyBytes(to, from, words * sizeof(uint64_t), stream_));
  synchronise();
}

void ModuleKernels::synchronise() { check(api_.synchronise(stream_)); }

void* ModuleKernels::take(size_t bytes) {
  const size_t rounded = (bytes + kAlignment - 1) / kAlignment * kAlignment;
  if (rounded > left_) {
    left_ = std::max(rounded, kChunkBytes);
    void* chunk = nullptr;
    check(api_.allocate(left_, &chunk));
    chunks_.push_back(chunk);
    free_ = static_cast<uint8_t*>(chunk);
  }
  void* result = free_;
  free_ += rounded;
  left_ -= rounded;
  return result;
}

// The copy waits, so that `data` may go.
const void* ModuleKernels::resident(const void* data, size_t bytes) {
  std::string key(static_cast<const char*>(data), bytes);
  const auto found = residents_.find(key);
  if (found != residents_.end()) return found->second;
  void* memory = take(std::max<size_t>(bytes, 1));
  check(api_.copyBytes(memory, data, bytes, stream_));
  synchronise();
  residents_.emplace(std::move(key), memory);
  return memory;
}

ModuleKernels::Ring& ModuleKernels::ringOf(const RingContext& ring) {
  std::vector<uint64_t> key = {ring.logN()};
  for (uint32_t i = 0; i < ring.primeCount(); i++) key.push_back(ring.modulus(i));
  Ring& kept = rings_[std::string(reinterpret_cast<const char*>(key.data()), key.size() * sizeof(uint64_t))];
  if (!kept.tables.empty()) return kept;
  std::vector<Prime> primes;
  for (uint32_t i = 0; i < ring.primeCount(); i++) primes.push_back(ring.prime(i));
  kept.tables.resize(primes.size());
  kept.deviceTables = static_cast<NttTable*>(take(primes.size() * sizeof(NttTable)));
  kept.view = {ring.logN(), keep(primes.data(), primes.size()), kept.deviceTables};
  return kept;
}

void ModuleKernels::addTransforms(Ring& kept, const RingContext& ring, const Launch& launch) {
  bool added = false;
  for (uint32_t j = 0; j < launch.limbCount; j++) {
    NttTable& table = kept.tables[launch.limbs[j]];
    if (table.logN != 0) continue;
    table = ring.nttTable(launch.limbs[j], cuda::twiddlesOf(cuda::MultiplyForm(api_.multiply)));
    cuda::moveTwiddles(table, [&](const auto* words) { return keep(words, ring.degree()); });
    added = true;
  }
  if (!added) return;
  const size_t bytes = kept.tables.size() * sizeof(NttTable);
  check(api_.copyBytes(kept.deviceTables, kept.tables.data(), bytes, stream_));
  synchronise();
}

AegisCudaLaunch ModuleKernels::on(const RingContext& ring, const Launch& launch, bool transforms) {
  Ring& kept = ringOf(ring);
  if (transforms) addTransforms(kept, ring, launch);
  launch_ = launch;
  launch_.limbs = keep(launch.limbs, launch.limbCount);
  return {stream_, &kept.view, &launch_};
}

ConversionTable ModuleKernels::conversion(const ConversionTable& table) {
  ConversionTable kept = table;
  kept.sources = keep(table.sources, table.sourceCount);
  kept.destinations = keep(table.destinations, table.destinationCount);
  kept.scale = keep(table.scale, table.sourceCount);
  kept.scaleShoup64 = keep(table.scaleShoup64, table.sourceCount);
  kept.scaleShoup52 = nullptr;
  kept.matrix = keep(table.matrix, size_t(table.sourceCount) * table.destinationCount);
  kept.offset = keep(table.offset, table.destinationCount);
  return kept;
}

cuda::Scratch ModuleKernels::scratch(const Launch& launch, const PlainRows& plain) {
  const size_t needed = cuda::scratchWords(launch, plain);
  if (needed > scratch_.words) {
    synchronise();
    if (scratch_.base != nullptr) release(scratch_.base);
    scratch_ = {allocate(needed), needed};
  }
  return scratch_;
}

// ---------------------------------------------------------------- operands in the host's memory

namespace {

// What a launch touches of the host's memory, and its copy in the device's.
class Shadow {
 public:
  ~Shadow() {
    for (const Range& range : ranges_)
      if (range.copy != nullptr) kernels_.api().release(range.copy);
  }

  // Dimensions [0, rank) count. A row has `words` words.
  template <class Operand>
  void add(const Launch& launch, uint32_t rank, const Operand& x, uint64_t words, uint64_t limbs,
           uint64_t components = 1, ptrdiff_t componentStride = 0) {
    ptrdiff_t first = 0, last = 0;
    const auto extend = [&](uint64_t count, ptrdiff_t stride) {
      const ptrdiff_t reach = ptrdiff_t(count - 1) * stride;
      (reach < 0 ? first : last) += reach;
    };
    for (uint32_t d = 0; d < rank; d++) extend(launch.dims[d], x.strides[d]);
    extend(limbs, x.limbStride);
    extend(components, componentStride);
    add(x.base + first, uint64_t(last - first) + words);
  }
  void add(const uint64_t* base, uint64_t words) { ranges_.push_back({base, base + words, nullptr}); }

  // Ranges that meet become one: an output that is an input stays so.
  void upload() {
    std::sort(ranges_.begin(), ranges_.end(),
              [](const Range& x, const Range& y) { return x.begin < y.begin; });
    std::vector<Range> merged;
    for (const Range& range : ranges_) {
      if (!merged.empty() && range.begin < merged.back().end)
        merged.back().end = std::max(merged.back().end, range.end);
      else merged.push_back(range);
    }
    ranges_ = merged;
    for (Range& range : ranges_) {
      range.copy = kernels_.allocate(uint64_t(range.end - range.begin));
      kernels_.upload(range.copy, range.begin, uint64_t(range.end - range.begin));
    }
  }

  template <class Word>
  Word* at(Word* host) const {
    const Range& range = rangeOf(host);
    return range.copy + (host - range.begin);
  }
  template <class Operand>
  Operand moved(Operand x) const {
    x.base = at(x.base);
    return x;
  }
  // The whole range that `out` lies in.
  void download(uint64_t* out) const {
    const Range& range = rangeOf(out);
    kernels_.download(out - (out - range.begin), range.copy, uint64_t(range.end - range.begin));
  }

 private:
  struct Range {
    const uint64_t *begin, *end;
    uint64_t* copy;
  };
  const Range& rangeOf(const uint64_t* host) const {
    for (const Range& range : ranges_)
      if (range.begin <= host && host < range.end) return range;
    AEGIS_INVARIANT(!"an operand's memory");
    return ranges_.front();
  }

  ModuleKernels& kernels_ = ModuleKernels::active();
  std::vector<Range> ranges_;
};

uint32_t outerRank(const Launch& launch) { return launch.rank - launch.reduceRank; }

// call(out, inputs...) with operands in the device's memory; `out` and inputs have one component.
template <class Call, class... Inputs>
void shadowed(const RingContext& ring, const Launch& launch, const Call& call, const Rows& out,
              const Inputs&... inputs) {
  if (launch.limbCount == 0) return;
  Shadow shadow;
  shadow.add(launch, outerRank(launch), out, ring.degree(), launch.limbCount);
  [[maybe_unused]] const auto words = [&](const auto& x) -> uint64_t {
    if constexpr (std::is_same_v<std::decay_t<decltype(x)>, PlainRows>) return x.rowWords;
    else return ring.degree();
  };
  (shadow.add(launch, launch.rank, inputs, words(inputs), launch.limbCount), ...);
  shadow.upload();
  call(shadow.moved(out), shadow.moved(inputs)...);
  shadow.download(out.base);
}

void hostZero(const RingContext& ring, ThreadPool& pool, const Launch& launch, Rows out) {
  shadowed(ring, launch, [&](const Rows& to) { zero(ring, pool, launch, to); }, out);
}

template <auto KernelTable::* entry, class Input>
void hostUnary(const RingContext& ring, ThreadPool& pool, const Launch& launch, Rows out, Input a) {
  shadowed(
      ring, launch, [&](const Rows& to, const Input& x) { (kDeviceTable.*entry)(ring, pool, launch, to, x); },
      out, a);
}

template <auto KernelTable::* entry, class Input>
void hostBinary(const RingContext& ring, ThreadPool& pool, const Launch& launch, Rows out, Rows a, Input b) {
  shadowed(
      ring, launch,
      [&](const Rows& to, const Rows& x, const Input& y) {
        (kDeviceTable.*entry)(ring, pool, launch, to, x, y);
      },
      out, a, b);
}

template <auto KernelTable::* entry>
void hostScaled(const RingContext& ring, ThreadPool& pool, const Launch& launch, Rows out, Rows a, Rows b,
                const uint64_t* scalars) {
  shadowed(
      ring, launch,
      [&](const Rows& to, const Rows& x, const Rows& y) {
        (kDeviceTable.*entry)(ring, pool, launch, to, x, y, scalars);
      },
      out, a, b);
}

void hostTensor(const RingContext& ring, ThreadPool& pool, const Launch& launch, Rows out, Rows a, Rows b) {
  const uint64_t n = ring.degree();
  Shadow shadow;
  shadow.add(launch, outerRank(launch), out, n, launch.limbCount, 3, out.componentStride);
  shadow.add(launch, launch.rank, a, n, launch.limbCount, 2, a.componentStride);
  shadow.add(launch, launch.rank, b, n, launch.limbCount, 2, b.componentStride);
  shadow.upload();
  kDeviceTable.tensor(ring, pool, launch, shadow.moved(out), shadow.moved(a), shadow.moved(b));
  shadow.download(out.base);
}

void hostBaseConvert(const RingContext& ring, ThreadPool& pool, const Launch& launch, Rows out, Rows a,
                     const uint16_t* sourceLimbs, uint32_t sourceCount) {
  Shadow shadow;
  shadow.add(launch, launch.rank, out, ring.degree(), launch.limbCount);
  shadow.add(launch, launch.rank, a, ring.degree(), sourceCount);
  shadow.upload();
  baseConvert(ring, pool, launch, shadow.moved(out), shadow.moved(a), sourceLimbs, sourceCount);
  shadow.download(out.base);
}

void hostKeyProduct(const RingContext& ring, ThreadPool& pool, const Launch& launch, Rows out, Rows digits,
                    uint32_t digitCount, const KeyView* keys, uint32_t keyDim, const uint16_t* keyRows) {
  const uint64_t n = ring.degree();
  Shadow shadow;
  shadow.add(launch, outerRank(launch), out, n, launch.limbCount, 2, out.componentStride);
  shadow.add(launch, launch.rank, digits, n, launch.limbCount, digitCount, digits.componentStride);
  std::vector<KeyView> views(keys, keys + (keyDim == ~0u ? 1 : launch.dims[keyDim]));
  for (const KeyView& view : views) shadow.add(view.base, view.digitCount * 2 * view.rowCount * n);
  shadow.upload();
  for (KeyView& view : views) view.base = shadow.at(view.base);
  keyProduct(ring, pool, launch, shadow.moved(out), shadow.moved(digits), digitCount, views.data(), keyDim,
             keyRows);
  shadow.download(out.base);
}

void hostAutomorphism(const RingContext& ring, ThreadPool& pool, const Launch& launch, Rows out, Rows a,
                      const uint32_t* galois, uint32_t galoisDim) {
  shadowed(
      ring, launch,
      [&](const Rows& to, const Rows& x) { automorphism(ring, pool, launch, to, x, galois, galoisDim); }, out,
      a);
}

void hostSumRows(uint64_t* out, const uint64_t* const* rows, size_t count, size_t words, const Prime& prime) {
  Shadow shadow;
  shadow.add(out, words);
  for (size_t i = 0; i < count; i++) shadow.add(rows[i], words);
  shadow.upload();
  std::vector<const uint64_t*> moved;
  for (size_t i = 0; i < count; i++) moved.push_back(shadow.at(rows[i]));
  sumRows(shadow.at(out), moved.data(), count, words, prime);
  shadow.download(out);
}

constexpr KernelTable kHostTable = {"cuda",
                                    hostZero,
                                    hostUnary<&KernelTable::copy, Rows>,
                                    hostBinary<&KernelTable::add, Rows>,
                                    hostBinary<&KernelTable::sub, Rows>,
                                    hostBinary<&KernelTable::addPlain, PlainRows>,
                                    hostBinary<&KernelTable::contract, PlainRows>,
                                    hostTensor,
                                    hostUnary<&KernelTable::ntt, Rows>,
                                    hostUnary<&KernelTable::intt, Rows>,
                                    hostBaseConvert,
                                    hostScaled<&KernelTable::subScale>,
                                    hostScaled<&KernelTable::nttSubScale>,
                                    hostKeyProduct,
                                    hostAutomorphism,
                                    hostSumRows};

}  // namespace

const KernelTable& ModuleKernels::hostTable() { return kHostTable; }

}  // namespace aegis
