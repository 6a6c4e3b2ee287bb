// aegis_cuda_emulated.so: the interface of the CUDA module on the host, for tests (machine.h has its
// settings). Kernels are the emulator's; streams are threads, so that who forgets to wait gets wrong bits;
// memory starts as garbage, and a pointer that is not the device's is an error of the device that stays.
#include <cstdio>
#include <cstring>

#include "backends/cuda/emulator.h"
#include "backends/cuda/launches.h"
#include "backends/cuda/module.h"
#include "test/emulated_cuda/inspect.h"
#include "test/emulated_cuda/machine.h"
#include "test/emulated_cuda/stream.h"

namespace aegis::emulated {
namespace {

using cuda::Commands;
using cuda::EmulatedLauncher;
using cuda::MultiplyChainJob;
using cuda::ReduceRowsJob;
using cuda::RingView;
using cuda::Scratch;

constexpr const char* kCapturing = "operation not permitted when stream is capturing";

thread_local uint32_t currentDevice = 0;

const char* say(const std::string& text) {
  thread_local std::string kept;
  kept = text;
  return kept.c_str();
}

const char* said(const std::string& what, const std::string& problem) {
  return problem.empty() ? nullptr : say(what + ": " + problem);
}

Stream& streamOf(void* stream) { return *static_cast<Stream*>(stream); }
std::shared_ptr<Event>& eventOf(void* event) { return *static_cast<std::shared_ptr<Event>*>(event); }

// Of the stream's device, and of a stream that this thread may use.
std::string refusal(const Stream& stream) {
  if (stream.device != currentDevice) return "invalid resource handle: a stream of another device";
  return Machine::get().failure(stream.device);
}

// Queues kernels: the body of a block runs when its turn comes.
class StreamLauncher {
 public:
  explicit StreamLauncher(Stream& stream) : stream_(stream) {}

  template <class Kernel>
  void start(const Kernel& kernel, uint32_t blocks, uint32_t threads, uint32_t sharedWords) {
    if (blocks == 0) return;
    stream_.push([=]() -> std::string {
      static ThreadPool& cores = *new ThreadPool;  // of all streams; outlives their threads
      EmulatedLauncher(cores).start(kernel, blocks, threads, sharedWords);
      return "";
    });
  }

 private:
  Stream& stream_;
};

// inspect(inspection) before the kernels of run(commands).
template <class Inspect, class Run>
const char* launched(const char* kernel, const AegisCudaLaunch* on, const Inspect& inspect, const Run& run) {
  Stream& stream = streamOf(on->stream);
  if (const std::string problem = refusal(stream); !problem.empty()) return said(kernel, problem);
  if (!cuda::fitsGrid(*on->ring, *on->launch))
    return say(std::string(kernel) + ": a launch of more than 2^35 words");
  const bool fails = ++Machine::get().launches == Machine::get().settings.fail;
  stream.push([=, device = stream.device, ring = *on->ring, launch = *on->launch]() -> std::string {
    if (fails) return std::string("an illegal memory access was encountered: ") + kernel;
    Inspection inspection(kernel, device, ring, launch);
    inspection.primes();
    inspect(inspection, launch);
    return inspection.problem();
  });
  StreamLauncher launcher(stream);
  Commands<StreamLauncher> commands(launcher, *on->ring);
  run(commands);
  return nullptr;
}

uint32_t driver() { return 13000; }

const char* deviceCount(uint32_t* count) {
  Machine::get().restart();
  *count = Machine::get().settings.devices;
  return nullptr;
}

const char* describe(uint32_t device, AegisCudaDevice* out) {
  std::snprintf(out->name, sizeof out->name, "EMULATED GPU %u", device);
  out->memoryBytes = uint64_t(Machine::get().settings.memoryMiB) << 20;
  out->major = 9;
  out->minor = 0;
  return nullptr;
}

const char* useDevice(uint32_t device) {
  if (device >= Machine::get().settings.devices) return say("choosing a device: invalid device ordinal");
  currentDevice = device;
  return nullptr;
}

const char* loadKernels() { return nullptr; }

const char* allocate(uint64_t bytes, void** out) {
  return said("allocating device memory", Machine::get().allocate(currentDevice, bytes, out));
}

const char* release(void* memory) {
  return said("releasing device memory", Machine::get().release(memory));
}

const char* createStream(void** out) {
  *out = new Stream(currentDevice);
  return nullptr;
}

const char* destroyStream(void* stream) {
  delete &streamOf(stream);
  return nullptr;
}

// Of `bytes` at an end of a copy on the stream.
std::string refuseEnd(const Stream& stream, const void* memory, uint64_t bytes) {
  Machine& machine = Machine::get();
  const int owner = machine.ownerOf(memory, bytes);
  if (owner == -3) return "invalid argument: an end of the copy leaves its allocation";
  if (owner >= 0 && !machine.peerEnabled(stream.device, uint32_t(owner)))
    return "no peer access to device " + std::to_string(owner);
  return "";
}

// As the driver does: pageable memory is read during the call, and written before it returns.
const char* copyBytes(void* to, const void* from, uint64_t bytes, void* onStream) {
  Stream& stream = streamOf(onStream);
  if (const std::string problem = refusal(stream); !problem.empty()) return said("copying", problem);
  Machine& machine = Machine::get();
  const bool fromPageable = machine.ownerOf(from, bytes) == kPageable;
  const bool toPageable = machine.ownerOf(to, bytes) == kPageable;
  if ((fromPageable || toPageable) && stream.capturing())
    return say(std::string("copying: ") + kCapturing);
  std::shared_ptr<std::string> kept;
  if (fromPageable) kept = std::make_shared<std::string>(static_cast<const char*>(from), bytes);
  stream.push([=, &stream]() -> std::string {
    std::string problem = refuseEnd(stream, to, bytes);
    if (problem.empty() && !kept) problem = refuseEnd(stream, from, bytes);
    if (problem.empty()) std::memcpy(to, kept ? kept->data() : from, bytes);
    return problem;
  });
  if (toPageable) stream.wait();
  return said("copying", machine.failure(stream.device));
}

const char* synchronise(void* onStream) {
  Stream& stream = streamOf(onStream);
  if (stream.capturing()) return say(std::string("waiting for a stream: ") + kCapturing);
  stream.wait();
  return said("waiting for a stream", Machine::get().failure(stream.device));
}

// ---- module_runtime.h ----

const char* memory(uint64_t* freeBytes, uint64_t* totalBytes) {
  *freeBytes = Machine::get().freeBytes(currentDevice);
  *totalBytes = uint64_t(Machine::get().settings.memoryMiB) << 20;
  return nullptr;
}

const char* hostAllocate(uint64_t bytes, void** out) {
  return said("allocating pinned memory", Machine::get().allocatePinned(bytes, out));
}
const char* hostRelease(void* memory) {
  return said("releasing pinned memory", Machine::get().unpin(memory));
}
const char* hostRegister(void* memory, uint64_t bytes) {
  return said("pinning memory", Machine::get().pin(memory, bytes));
}
const char* hostUnregister(void* memory) { return said("unpinning memory", Machine::get().unpin(memory)); }

const char* fill(void* memory, uint32_t byte, uint64_t bytes, void* onStream) {
  Stream& stream = streamOf(onStream);
  if (const std::string problem = refusal(stream); !problem.empty()) return said("filling memory", problem);
  stream.push([=, &stream]() -> std::string {
    if (Machine::get().ownerOf(memory, bytes) != int(stream.device)) return "filling memory of no device";
    std::memset(memory, int(byte), bytes);
    return "";
  });
  return nullptr;
}

const char* createEvent(void** out) {
  *out = new std::shared_ptr<Event>(std::make_shared<Event>(currentDevice));
  return nullptr;
}

const char* destroyEvent(void* event) {
  delete &eventOf(event);
  return nullptr;
}

const char* record(void* event, void* onStream) {
  Stream& stream = streamOf(onStream);
  const std::shared_ptr<Event> one = eventOf(event);
  if (stream.capturing()) return say(std::string("recording an event: ") + kCapturing);
  if (one->device != stream.device) return say("recording an event: invalid resource handle");
  stream.pushAlways([one, number = one->record()] { one->reach(number); });
  return said("recording an event", refusal(stream));
}

const char* streamWait(void* onStream, void* event) {
  Stream& stream = streamOf(onStream);
  if (stream.capturing()) return say(std::string("waiting for an event: ") + kCapturing);
  stream.pushAlways([one = eventOf(event), number = eventOf(event)->recorded()] { one->await(number); });
  return said("waiting for an event", refusal(stream));
}

const char* query(void* event, int* done) {
  *done = eventOf(event)->done();
  return said("asking an event", Machine::get().failure(eventOf(event)->device));
}

const char* elapsed(void* from, void* to, float* milliseconds) {
  const std::optional<double> seconds = eventOf(from)->secondsUntil(*eventOf(to));
  if (!seconds) return say("timing events: an event is not done");
  *milliseconds = float(*seconds * 1000);
  return nullptr;
}

const char* beginCapture(void* stream) {
  if (const std::string problem = refusal(streamOf(stream)); !problem.empty())
    return said("beginning a capture", problem);
  if (streamOf(stream).capturing()) return say("beginning a capture: the stream is capturing");
  streamOf(stream).beginCapture();
  return nullptr;
}

const char* endCapture(void* stream, void** graph) {
  if (!streamOf(stream).capturing()) return say("ending a capture: the stream is not capturing");
  *graph = streamOf(stream).endCapture().release();
  return nullptr;
}

const char* dropCapture(void* stream) {
  streamOf(stream).endCapture();
  return nullptr;
}

const char* launchGraph(void* graph, void* onStream) {
  Stream& stream = streamOf(onStream);
  const Graph& one = *static_cast<Graph*>(graph);
  if (const std::string problem = refusal(stream); !problem.empty())
    return said("launching a graph", problem);
  if (stream.capturing() || one.device != stream.device) return say("launching a graph: invalid argument");
  Machine::get().graphs++;
  for (const Work& work : one.work) stream.push(work);
  return nullptr;
}

const char* destroyGraph(void* graph) {
  delete static_cast<Graph*>(graph);
  return nullptr;
}

const char* canAccessPeer(uint32_t device, uint32_t peer, int* can) {
  *can = Machine::get().canAccess(device, peer);
  return nullptr;
}

const char* enablePeer(uint32_t peer) {
  if (!Machine::get().canAccess(currentDevice, peer))
    return say("enabling peer access: peer access is not supported between these two devices");
  Machine::get().enablePeer(currentDevice, peer);
  return nullptr;
}

const char* reduceRows(void* onStream, const ReduceRowsJob* job) {
  Stream& stream = streamOf(onStream);
  if (const std::string problem = refusal(stream); !problem.empty()) return said("reduceRows", problem);
  stream.push([job = *job, device = stream.device]() -> std::string {
    const Launch none;
    const RingView ring{job.logN, job.primes, nullptr};
    Inspection inspection("reduceRows", device, ring, none);
    const uint64_t bytes = (job.rows * 8) << job.logN;
    inspection.bytes("out", job.out, bytes);
    for (uint32_t b = 0; b < job.count; b++) inspection.bytes("a block", job.blocks[b], bytes);
    inspection.bytes("limbs", job.limbs, job.limbCount * sizeof(uint16_t));
    for (uint32_t j = 0; inspection.problem().empty() && j < job.limbCount; j++)
      inspection.bytes("primes", job.primes + job.limbs[j], sizeof(Prime));
    return inspection.problem();
  });
  StreamLauncher(stream).start(cuda::ReduceRows{*job}, uint32_t(cuda::reduceBlocks(*job)),
                               cuda::kBlockThreads, 0);
  return nullptr;
}

const char* multiplyChain(void* onStream, uint32_t form, const MultiplyChainJob* job) {
  Stream& stream = streamOf(onStream);
  if (const std::string problem = refusal(stream); !problem.empty()) return said("multiplyChain", problem);
  if (form >= cuda::kMultiplyForms) return say("multiplyChain: no form " + std::to_string(form));
  stream.push([job = *job, device = stream.device]() -> std::string {
    const Launch none;
    const RingView ring;
    Inspection inspection("multiplyChain", device, ring, none);
    inspection.bytes("words", job.words, uint64_t(job.blocks) * cuda::kChainBlockWords * 8);
    return inspection.problem();
  });
  StreamLauncher launcher(stream);
  cuda::startChain(launcher, form, *job);
  return nullptr;
}

// ---- launches ----

const char* zero(const AegisCudaLaunch* on, const Rows* out) {
  return launched("zero", on,
                  [=, out = *out](Inspection& i, const Launch& l) { i.rows("out", out, l.limbCount); },
                  [&](auto& run) { run.zero(*on->launch, *out); });
}

// Kernels with one ciphertext operand of as many limbs as the output.
template <class Run>
const char* unary(const char* kernel, const AegisCudaLaunch* on, const Rows* out, const Rows* a,
                  const Run& run, bool transforms = false) {
  return launched(kernel, on,
                  [=, out = *out, a = *a](Inspection& i, const Launch& l) {
                    i.rows("out", out, l.limbCount);
                    i.rows("a", a, l.limbCount);
                    if (transforms) i.transforms();
                  },
                  run);
}

template <class Run>
const char* binary(const char* kernel, const AegisCudaLaunch* on, const Rows* out, const Rows* a,
                   const Rows* b, const Run& run, uint32_t components = 1, uint32_t outComponents = 1) {
  return launched(kernel, on,
                  [=, out = *out, a = *a, b = *b](Inspection& i, const Launch& l) {
                    i.rows("out", out, l.limbCount, outComponents);
                    i.rows("a", a, l.limbCount, components);
                    i.rows("b", b, l.limbCount, components);
                  },
                  run);
}

template <class Run>
const char* withPlain(const char* kernel, const AegisCudaLaunch* on, const Rows* out, const Rows* a,
                      const PlainRows* p, const Scratch* scratch, const Run& run) {
  if (scratch->words < cuda::scratchWords(*on->launch, *p))
    return say(std::string(kernel) + ": too little scratch");
  return launched(kernel, on,
                  [=, out = *out, a = *a, p = *p, scratch = *scratch](Inspection& i, const Launch& l) {
                    i.rows("out", out, l.limbCount);
                    i.rows("a", a, l.limbCount);
                    i.plain(p);
                    if (p.coefficients) i.transforms();
                    if (p.coefficients) i.scratch(scratch);
                  },
                  run);
}

const char* copy(const AegisCudaLaunch* on, const Rows* out, const Rows* a) {
  return unary("copy", on, out, a, [&](auto& run) { run.copy(*on->launch, *out, *a); });
}

const char* add(const AegisCudaLaunch* on, const Rows* out, const Rows* a, const Rows* b) {
  return binary("add", on, out, a, b, [&](auto& run) { run.add(*on->launch, *out, *a, *b); });
}

const char* sub(const AegisCudaLaunch* on, const Rows* out, const Rows* a, const Rows* b) {
  return binary("sub", on, out, a, b, [&](auto& run) { run.sub(*on->launch, *out, *a, *b); });
}

const char* addPlain(const AegisCudaLaunch* on, const Rows* out, const Rows* a, const PlainRows* p,
                     const Scratch* scratch) {
  return withPlain("addPlain", on, out, a, p, scratch,
                   [&](auto& run) { run.addPlain(*on->launch, *out, *a, *p, *scratch); });
}

const char* contract(const AegisCudaLaunch* on, const Rows* out, const Rows* a, const PlainRows* p,
                     const Scratch* scratch) {
  return withPlain("contract", on, out, a, p, scratch,
                   [&](auto& run) { run.contract(*on->launch, *out, *a, *p, *scratch); });
}

const char* tensor(const AegisCudaLaunch* on, const Rows* out, const Rows* a, const Rows* b) {
  return binary("tensor", on, out, a, b, [&](auto& run) { run.tensor(*on->launch, *out, *a, *b); }, 2, 3);
}

const char* ntt(const AegisCudaLaunch* on, const Rows* out, const Rows* a) {
  return unary("ntt", on, out, a, [&](auto& run) { run.ntt(*on->launch, *out, *a); }, true);
}

const char* intt(const AegisCudaLaunch* on, const Rows* out, const Rows* a) {
  return unary("intt", on, out, a, [&](auto& run) { run.intt(*on->launch, *out, *a); }, true);
}

const char* baseConvert(const AegisCudaLaunch* on, const Rows* out, const Rows* a,
                        const ConversionTable* table) {
  return launched("baseConvert", on,
                  [=, out = *out, a = *a, table = *table](Inspection& i, const Launch& l) {
                    i.rows("out", out, l.limbCount);
                    i.rows("a", a, table.sourceCount);
                    i.conversion(table);
                  },
                  [&](auto& run) { run.baseConvert(*on->launch, *out, *a, *table); });
}

const char* subScale(const AegisCudaLaunch* on, const Rows* out, const Rows* a, const Rows* b,
                     const uint64_t* scalars) {
  return launched("subScale", on,
                  [=, out = *out, a = *a, b = *b](Inspection& i, const Launch& l) {
                    i.rows("out", out, l.limbCount);
                    i.rows("a", a, l.limbCount);
                    i.rows("b", b, l.limbCount);
                    i.bytes("scalars", scalars, l.limbCount * sizeof(uint64_t));
                  },
                  [&](auto& run) { run.subScale(*on->launch, *out, *a, *b, scalars); });
}

const char* nttSubScale(const AegisCudaLaunch* on, const Rows* out, const Rows* a, const Rows* b,
                        const uint64_t* scalars) {
  return launched("nttSubScale", on,
                  [=, out = *out, a = *a, b = *b](Inspection& i, const Launch& l) {
                    i.rows("out", out, l.limbCount);
                    i.rows("a", a, l.limbCount);
                    i.rows("b", b, l.limbCount);
                    i.bytes("scalars", scalars, l.limbCount * sizeof(uint64_t));
                    i.transforms();
                  },
                  [&](auto& run) { run.nttSubScale(*on->launch, *out, *a, *b, scalars); });
}

const char* keyProduct(const AegisCudaLaunch* on, const Rows* out, const Rows* digits, uint32_t digitCount,
                       const KeyView* keys, uint32_t keyDim, const uint16_t* keyRows) {
  return launched("keyProduct", on,
                  [=, out = *out, digits = *digits](Inspection& i, const Launch& l) {
                    i.rows("out", out, l.limbCount, 2);
                    i.rows("digits", digits, l.limbCount, digitCount);
                    i.keys(keys, keyDim, digitCount, keyRows);
                  },
                  [&](auto& run) {
                    run.keyProduct(*on->launch, *out, *digits, digitCount, keys, keyDim, keyRows);
                  });
}

const char* automorphism(const AegisCudaLaunch* on, const Rows* out, const Rows* a, const uint32_t* galois,
                         uint32_t galoisDim) {
  return launched("automorphism", on,
                  [=, out = *out, a = *a](Inspection& i, const Launch& l) {
                    i.rows("out", out, l.limbCount);
                    i.rows("a", a, l.limbCount);
                    i.bytes("galois", galois,
                            (galoisDim == ~0u ? 1 : l.dims[galoisDim]) * sizeof(uint32_t));
                  },
                  [&](auto& run) { run.automorphism(*on->launch, *out, *a, galois, galoisDim); });
}

constexpr AegisCudaRuntime runtimeApi = {
    memory,       hostAllocate, hostRelease, hostRegister, hostUnregister, fill,         createEvent,
    destroyEvent, record,       streamWait,  query,        elapsed,        beginCapture, endCapture,
    dropCapture,  launchGraph,  destroyGraph, canAccessPeer, enablePeer,   reduceRows};

AegisCuda moduleApi() {
  AegisCuda api{};
  api.version = kAegisCudaVersion;
  api.toolkit = 13000;
  api.runtime = &runtimeApi;
  api.driver = driver;
  api.deviceCount = deviceCount;
  api.describe = describe;
  api.useDevice = useDevice;
  api.loadKernels = loadKernels;
  api.allocate = allocate;
  api.release = release;
  api.createStream = createStream;
  api.destroyStream = destroyStream;
  api.copyBytes = copyBytes;
  api.synchronise = synchronise;
  api.zero = zero;
  api.copy = copy;
  api.add = add;
  api.sub = sub;
  api.addPlain = addPlain;
  api.contract = contract;
  api.tensor = tensor;
  api.ntt = ntt;
  api.intt = intt;
  api.baseConvert = baseConvert;
  api.subScale = subScale;
  api.nttSubScale = nttSubScale;
  api.keyProduct = keyProduct;
  api.automorphism = automorphism;
  api.multiply = uint32_t(cuda::MultiplyForm::AEGIS_CUDA_MULTIPLY);
  api.multiplyChain = multiplyChain;
  return api;
}

}  // namespace
}  // namespace aegis::emulated

// As cudaLaunchHostFunc: the fake NCCL's work takes its turn in a stream.
extern "C" void aegisEmulatedCudaHostCall(void* stream, void (*work)(void*), void* data) {
  aegis::emulated::streamOf(stream).pushAlways([=] { work(data); });
}

// For programs that loaded it.
extern "C" uint64_t aegisEmulatedCudaRegions() { return aegis::emulated::Machine::get().regionCount(); }
extern "C" uint64_t aegisEmulatedCudaGraphs() { return aegis::emulated::Machine::get().graphs; }

const AegisCuda* aegisCuda() {
  static const AegisCuda api = aegis::emulated::moduleApi();
  return &api;
}
