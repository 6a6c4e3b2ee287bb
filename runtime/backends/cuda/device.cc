#include "backends/cuda/device.h"

#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <cstring>
#include <thread>

#include "backends/cuda/launches.h"
#include "hal/channel.h"
#include "hal/thread_pool.h"
#include "support/error.h"

namespace aegis {
namespace {

// A window is to take about this long: cancellation waits for at most kWindows of them.
constexpr double kWindowSeconds = 0.03;
// Until one has been measured, in word operations; and the least and most.
constexpr uint64_t kFirstWindowWords = uint64_t(1) << 26, kMostWindowWords = uint64_t(1) << 36;
constexpr uint64_t kWindowLaunches = 8192, kProfiledLaunches = 256;
// Of a reduction: what is held of every other rank's rows at a time.
constexpr uint64_t kRemoteBytes = uint64_t(4) << 20;
constexpr uint32_t kSpins = 64;
constexpr auto kPoll = std::chrono::microseconds(50);

bool isSet(const char* variable, const char* value) {
  const char* text = std::getenv(variable);
  return text != nullptr && std::strcmp(text, value) == 0;
}

uint64_t remoteBytes(const PlanFile& plan, bool alone) {
  uint32_t others = 0;
  for (const Collective& collective : plan.collectives())
    if (collective.reduces()) others = std::max(others, collective.size() - 1);
  const uint64_t row = uint64_t(plan.ring().degree()) * sizeof(uint64_t);
  return alone ? 0 : others * std::max(row, kRemoteBytes);
}

}  // namespace

uint64_t CudaDevice::extraBytes(const PlanFile& plan, const ProgramTables& tables, bool alone) {
  return tables.bytes() + tables.scratchWords() * sizeof(uint64_t) + remoteBytes(plan, alone);
}

CudaDevice::CudaDevice(Setting s)
    : plan_(s.plan), rank_(s.rank), gpu_(s.gpu), residents_(s.residents), tables_(std::move(s.tables)),
      reachable_(s.reachable), pool_(s.pool), profiles_(isSet("AEGIS_CUDA_PROFILE", "1")),
      capturesCalls_(!profiles_ && !isSet("AEGIS_CUDA_GRAPHS", "0") && !residents_.streaming().any()) {
  gpu_.use();
  // A kernel that is loaded at its first launch waits for all that runs on the device, which may be a
  // collective that waits for this rank.
  check(gpu_.api.loadKernels());
  compute_ = gpu_.makeStream();
  communication_ = gpu_.makeStream();
  orderEvent_ = gpu_.makeEvent();
  stager_ = std::make_unique<Stager>(gpu_, communication_.get());
  const uint64_t remote = remoteBytes(plan_, s.alone);
  scratch_.words = tables_->scratchWords();
  if (scratch_.words > 0) scratchMemory_ = gpu_.allocate(scratch_.words * sizeof(uint64_t));
  scratch_.base = static_cast<uint64_t*>(scratchMemory_.get());
  if (remote > 0) remoteRows_ = gpu_.allocate(remote);
  tables_->load(gpu_, *stager_);
  if (residents_.streaming().any()) streamer_ = std::make_unique<Streamer>(gpu_, s.ringBytes);
  for (Window& window : windows_) {
    window.start = gpu_.makeEvent();
    window.end = gpu_.makeEvent();
    for (uint64_t i = 0; profiles_ && i < kProfiledLaunches; i++) window.marks.push_back(gpu_.makeEvent());
  }
  windowWork_ = std::max<uint64_t>(1, kFirstWindowWords / plan_.ring().degree());
}

// Nothing that goes away is in use any more.
CudaDevice::~CudaDevice() { abandon(); }

void CudaDevice::check(const char* problem) const {
  if (problem == nullptr) return;
  std::string place = "before its first node was done";
  if (lastNode_ != ~0u) place = "after node \"" + std::string(plan_.location(lastNode_)) + "\"";
  fail("R408", "rank " + std::to_string(rank_) + " on " + gpu_.name() + " stopped " + place + ": " + problem,
       "see what nvidia-smi says");
}

uint64_t CudaDevice::rowBytes() const { return uint64_t(plan_.ring().degree()) * sizeof(uint64_t); }

void CudaDevice::order(void* earlier, void* stream) {
  check(gpu_.runtime.record(orderEvent_.get(), earlier));
  check(gpu_.runtime.streamWait(stream, orderEvent_.get()));
}

// ---- rows ----

DeviceWords CudaDevice::allocate(uint64_t words) {
  gpu_.use();
  CudaHandle memory = gpu_.allocate(words * sizeof(uint64_t));
  if (words > 0) check(gpu_.runtime.fill(memory.get(), 0, words * sizeof(uint64_t), communication_.get()));
  settleCopies();
  auto* const data = static_cast<uint64_t*>(memory.get());
  const std::shared_ptr<void> kept = std::move(memory);
  return {{data, [kept](uint64_t*) {}}, words};
}

DeviceWords CudaDevice::stage(uint64_t words) {
  const std::shared_ptr<void> kept = gpu_.allocatePinned(words * sizeof(uint64_t));
  return {{static_cast<uint64_t*>(kept.get()), [kept](uint64_t*) {}}, words};
}

void CudaDevice::writeRows(uint64_t* to, size_t rows,
                           const std::function<const uint64_t*(size_t)>& source) {
  gpu_.use();
  const uint64_t row = rowBytes();
  stager_->upload(to, rows * row, [&](uint64_t at, uint64_t bytes, uint8_t* out) {
    pool_.parallelFor(bytes / row, 1, [&](size_t begin, size_t end) {
      for (size_t i = begin; i < end; i++) std::memcpy(out + i * row, source(at / row + i), row);
    });
  });
  stager_->drain();
}

// Rows that lie side by side travel together.
void CudaDevice::readRows(const uint64_t* from, const std::vector<size_t>& rows,
                          const std::function<uint64_t*(size_t)>& target) {
  gpu_.use();
  const uint64_t row = rowBytes(), n = plan_.ring().degree();
  for (size_t first = 0; first < rows.size();) {
    size_t end = first + 1;
    while (end < rows.size() && rows[end] == rows[end - 1] + 1) end++;
    stager_->download(from + rows[first] * n, (end - first) * row,
                      [&](uint64_t at, uint64_t bytes, const uint8_t* in) {
                        for (uint64_t i = 0; i < bytes / row; i++)
                          std::memcpy(target(first + at / row + i), in + i * row, row);
                      });
    first = end;
  }
}

// ---- launches ----

void CudaDevice::begin(RunWatch& watch) {
  gpu_.use();
  watch_ = &watch;
  lastNode_ = ~0u;
}

void CudaDevice::launch(const KernelCall& call) {
  const CommandSpec& c = *call.command;
  watch_->step(0, c.node);
  if (capturing_ != nullptr) return enqueue(call);
  openWindow();
  enqueue(call);
  if (profiles_) mark(c);
  account(call.work, 1, c.node);
}

// In halves, where it is more than a grid can count.
void CudaDevice::enqueue(const KernelCall& call) {
  if (cuda::fitsGrid(residents_.ring(), call.launch)) {
    check(start(call));
    if (streamer_ != nullptr) streamer_->used(compute_.get());
    return;
  }
  for (uint32_t d = 0; d < call.launch.rank - call.launch.reduceRank; d++) {
    const uint32_t size = call.launch.dims[d];
    if (size == 1) continue;
    enqueue(call.part(d, 0, size / 2));
    return enqueue(call.part(d, size / 2, size));
  }
  check(start(call));  // says what is too large
}

// The keys of the launch, in device memory.
const KeyView* CudaDevice::streamKeys(const KernelCall& call) {
  const CommandSpec& c = *call.command;
  const uint32_t count = c.turnDim == ~0u ? 1 : call.launch.dims[c.turnDim];
  const uint64_t bytes = count * sizeof(KeyView);
  if (bytes > Streamer::kSlotBytes) check("a key product with more keys than can be streamed");
  auto* const views = static_cast<KeyView*>(streamer_->slot());
  std::vector<Streamer::Item> items;
  for (uint32_t i = 0; i < count; i++) {
    views[i] = residents_.key(c.keys[call.turn + i], c.firstDigit);
    items.push_back({views[i].base, uint64_t(c.digitCount) * 2 * views[i].rowCount * rowBytes(), false});
  }
  items.push_back({views, bytes, true});
  const std::vector<void*> found =
      streamer_->fetch(items, compute_.get(), [&](const std::vector<void*>& places) {
        for (uint32_t i = 0; i < count; i++) views[i].base = static_cast<const uint64_t*>(places[i]);
      });
  return static_cast<const KeyView*>(found.back());
}

PlainRows CudaDevice::streamPlain(const KernelCall& call) {
  PlainRows rows = call.plain;
  const PlainExtent extent = plainExtent(call.launch, rows);
  const uint64_t* from = rows.base + extent.first;
  const void* to =
      streamer_->fetch({{from, extent.words * sizeof(uint64_t), false}}, compute_.get()).front();
  rows.base = static_cast<const uint64_t*>(to) - extent.first;
  return rows;
}

const char* CudaDevice::start(const KernelCall& call) {
  const CommandSpec& c = *call.command;
  const CommandTables& tables = (*tables_)[&c];
  Launch launch = call.launch;
  launch.limbs = tables.limbs;
  const AegisCudaLaunch on{compute_.get(), &residents_.ring(), &launch};
  const AegisCuda& api = gpu_.api;
  const Rows *out = &call.out, *a = &call.a, *b = &call.b;
  const PlainRows* plain = &call.plain;
  const KeyView* keys = tables.keys + call.turn;
  PlainRows streamed;
  const bool readsPlain = c.op == plan::Opcode_AddPlain || c.op == plan::Opcode_Contract;
  if (readsPlain && residents_.streaming().plaintexts) streamed = streamPlain(call), plain = &streamed;
  if (c.op == plan::Opcode_KeyProduct && residents_.streaming().keys) keys = streamKeys(call);
  switch (c.op) {
    case plan::Opcode_Zero: return api.zero(&on, out);
    case plan::Opcode_Copy: return api.copy(&on, out, a);
    case plan::Opcode_Add: return api.add(&on, out, a, b);
    case plan::Opcode_Sub: return api.sub(&on, out, a, b);
    case plan::Opcode_AddPlain: return api.addPlain(&on, out, a, plain, &scratch_);
    case plan::Opcode_Contract: return api.contract(&on, out, a, plain, &scratch_);
    case plan::Opcode_Tensor: return api.tensor(&on, out, a, b);
    case plan::Opcode_Ntt: return api.ntt(&on, out, a);
    case plan::Opcode_Intt: return api.intt(&on, out, a);
    case plan::Opcode_BaseConvert: return api.baseConvert(&on, out, a, &tables.conversion);
    case plan::Opcode_SubScale: return api.subScale(&on, out, a, b, tables.scalars);
    case plan::Opcode_NttSubScale: return api.nttSubScale(&on, out, a, b, tables.scalars);
    case plan::Opcode_KeyProduct:
      return api.keyProduct(&on, out, a, c.digitCount, keys, c.turnDim, tables.keyRows);
    case plan::Opcode_Automorphism:
      return api.automorphism(&on, out, a, tables.galois + call.turn, c.turnDim);
    case plan::Opcode_Loop:
    case plan::Opcode_Call:
    case plan::Opcode_Collective:
    case plan::Opcode_Wait: break;
  }
  AEGIS_INVARIANT(!"a kernel");
}

// ---- graphs ----

bool CudaDevice::enterCall(const CallSite& site) {
  if (capturing_ != nullptr) {
    innerCalls_++;
    return true;
  }
  GraphCache::Entry* const entry = capturesCalls_ ? graphs_.find(site) : nullptr;
  if (entry == nullptr) return true;
  const uint32_t node = site.function.commands.back().node;
  if (entry->graph != nullptr) {
    watch_->step(0, node);
    openWindow();
    check(gpu_.runtime.launchGraph(entry->graph.get(), compute_.get()));
    account(site.work, site.launches, node);
    return false;
  }
  if (!entry->seen || !graphs_.hasRoom(site.launches)) {
    entry->seen = true;
    return true;
  }
  check(gpu_.runtime.beginCapture(compute_.get()));
  capturing_ = entry;
  innerCalls_ = 0;
  capturedWork_ = site.work;
  capturedLaunches_ = site.launches;
  capturedNode_ = node;
  return true;
}

void CudaDevice::leaveCall() {
  if (capturing_ == nullptr) return;
  if (innerCalls_ > 0) {
    innerCalls_--;
    return;
  }
  void* graph = nullptr;
  GraphCache::Entry& entry = *capturing_;
  capturing_ = nullptr;
  check(gpu_.runtime.endCapture(compute_.get(), &graph));
  graphs_.keep(entry, {graph, [destroy = gpu_.runtime.destroyGraph](void* g) { destroy(g); }},
               capturedLaunches_);
  openWindow();
  check(gpu_.runtime.launchGraph(graph, compute_.get()));
  account(capturedWork_, capturedLaunches_, capturedNode_);
}

// ---- windows ----

void CudaDevice::openWindow() {
  if (open_) return;
  while (closed_ - retired_ >= kWindows - 1) retire(true);
  Window& window = windows_[closed_ % kWindows];
  window.work = window.launches = 0;
  window.profiled.clear();
  check(gpu_.runtime.record(window.start.get(), compute_.get()));
  open_ = true;
}

void CudaDevice::mark(const CommandSpec& command) {
  Window& window = windows_[closed_ % kWindows];
  check(gpu_.runtime.record(window.marks[window.profiled.size()].get(), compute_.get()));
  window.profiled.push_back(&command);
}

void CudaDevice::account(uint64_t work, uint64_t launches, uint32_t node) {
  Window& window = windows_[closed_ % kWindows];
  window.work += work;
  window.launches += launches;
  window.node = node;
  const uint64_t most = profiles_ ? kProfiledLaunches : kWindowLaunches;
  if (window.work < windowWork_ && window.launches < most) return;
  closeWindow();
  while (retired_ < closed_) {
    int done = 0;
    check(gpu_.runtime.query(windows_[retired_ % kWindows].end.get(), &done));
    if (!done) break;
    retire(false);
  }
}

void CudaDevice::closeWindow() {
  if (!open_) return;
  open_ = false;
  check(gpu_.runtime.record(windows_[closed_++ % kWindows].end.get(), compute_.get()));
}

// The oldest window that is closed.
void CudaDevice::retire(bool waits) {
  Window& window = windows_[retired_ % kWindows];
  if (waits) await(window.end.get());
  retired_++;
  lastNode_ = window.node;
  float milliseconds = 0;
  check(gpu_.runtime.elapsed(window.start.get(), window.end.get(), &milliseconds));
  if (profiles_) addProfile(window);
  else watch_->computed(milliseconds / 1000);
  // Windows that were full get nearer to their time.
  const uint64_t most = kMostWindowWords / plan_.ring().degree();
  if (window.work >= windowWork_) {
    if (milliseconds < 500 * kWindowSeconds) windowWork_ = std::min(most, windowWork_ * 2);
    if (milliseconds > 2000 * kWindowSeconds) windowWork_ = std::max<uint64_t>(1, windowWork_ / 2);
  }
  watch_->step(window.work, window.node);
}

void CudaDevice::addProfile(const Window& window) {
  void* before = window.start.get();
  for (size_t i = 0; i < window.profiled.size(); i++) {
    float milliseconds = 0;
    check(gpu_.runtime.elapsed(before, window.marks[i].get(), &milliseconds));
    watch_->spent(*window.profiled[i], milliseconds / 1000);
    before = window.marks[i].get();
  }
}

void CudaDevice::await(void* event) {
  for (uint32_t turn = 0;; turn++) {
    int done = 0;
    check(gpu_.runtime.query(event, &done));
    if (done) return;
    watch_->step(0, windows_[retired_ % kWindows].node);
    if (turn < kSpins) std::this_thread::yield();
    else std::this_thread::sleep_for(kPoll);
  }
}

void CudaDevice::settle() {
  closeWindow();
  while (retired_ < closed_) retire(true);
}

// And what a channel has enqueued.
void CudaDevice::finish() {
  settle();
  order(communication_.get(), compute_.get());
  check(gpu_.runtime.record(orderEvent_.get(), compute_.get()));
  await(orderEvent_.get());
}

void CudaDevice::abandon() noexcept {
  gpu_.api.useDevice(gpu_.ordinal);
  gpu_.runtime.dropCapture(compute_.get());
  capturing_ = nullptr;
  gpu_.api.synchronise(compute_.get());
  gpu_.api.synchronise(communication_.get());
  retired_ = closed_;
  open_ = false;
}

// ---- channels ----

void CudaDevice::copyRows(uint64_t* to, const Block& from, uint64_t rows) {
  const Gpu& other = static_cast<const CudaDevice&>(*from.device).gpu_;
  const uint64_t bytes = rows * rowBytes();
  if ((reachable_ >> other.ordinal & 1) != 0)
    return check(gpu_.api.copyBytes(to, from.rows, bytes, communication_.get()));
  other.use();
  Detour& detour = detours_[other.ordinal];
  if (detour.stager == nullptr) {
    detour.stream = other.makeStream();
    detour.stager = std::make_unique<Stager>(other, detour.stream.get());
  }
  detour.stager->download(from.rows, bytes, [&](uint64_t at, uint64_t count, const uint8_t* in) {
    gpu_.use();
    stager_->upload(reinterpret_cast<uint8_t*>(to) + at, in, count);
    other.use();
  });
  gpu_.use();
}

void CudaDevice::reduceRows(const Collective& collective, uint32_t index, uint64_t first, uint64_t rows,
                            const std::vector<const uint64_t*>& blocks, uint64_t* out, void* stream) {
  const bool scatters = collective.kind == CollectiveKind::kReduceScatter;
  cuda::ReduceRowsJob job;
  job.primes = residents_.ring().primes;
  job.limbs = tables_->limbsOf(collective);
  job.limbCount = uint32_t(collective.limbs[scatters ? index : 0].size());
  job.logN = plan_.ring().logN();
  job.first = first + (scatters ? 0 : collective.segmentOffset(index));
  job.rows = rows;
  job.count = uint32_t(blocks.size());
  std::copy(blocks.begin(), blocks.end(), job.blocks);
  job.out = out;
  check(gpu_.runtime.reduceRows(stream, &job));
}

void CudaDevice::sumBlocks(const Collective& collective, uint32_t index, uint64_t first, uint64_t rows,
                           const std::vector<Block>& blocks, uint64_t* out) {
  const uint64_t n = plan_.ring().degree(), chunk = std::max<uint64_t>(1, kRemoteBytes / rowBytes());
  for (uint64_t at = 0; at < rows; at += chunk) {
    const uint64_t count = std::min(chunk, rows - at);
    std::vector<const uint64_t*> here;
    auto* next = static_cast<uint64_t*>(remoteRows_.get());
    for (const Block& block : blocks) {
      const uint64_t* from = block.rows + at * n;
      if (&static_cast<const CudaDevice&>(*block.device).gpu_ != &gpu_) {
        copyRows(next, {block.device, from}, count);
        from = next;
        next += count * n;
      }
      here.push_back(from);
    }
    reduceRows(collective, index, first + at, count, here, out + at * n, communication_.get());
  }
}

void CudaDevice::settleCopies() { check(gpu_.api.synchronise(communication_.get())); }

void CudaDevice::copyOut(uint64_t* host, const uint64_t* rows, uint64_t words) {
  check(gpu_.api.copyBytes(host, rows, words * sizeof(uint64_t), communication_.get()));
  settleCopies();
}

void CudaDevice::copyIn(uint64_t* rows, const uint64_t* host, uint64_t words) {
  check(gpu_.api.copyBytes(rows, host, words * sizeof(uint64_t), communication_.get()));
  settleCopies();
}

}  // namespace aegis
