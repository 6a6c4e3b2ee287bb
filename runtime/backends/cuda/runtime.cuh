// module_runtime.h over the CUDA runtime (included by module.cu only).
#pragma once

#include <cuda_runtime_api.h>

#include <string>

#include "backends/cuda/module_runtime.h"

namespace aegis::cuda {
namespace {

const char* say(const std::string& text) {
  thread_local std::string kept;
  kept = text;
  return kept.c_str();
}

const char* said(const char* what, cudaError_t status) {
  if (status == cudaSuccess) return nullptr;
  cudaGetLastError();  // this one is told; those that stay come again
  return say(std::string(what) + ": " + cudaGetErrorString(status));
}

cudaStream_t streamOf(void* stream) { return static_cast<cudaStream_t>(stream); }
cudaEvent_t eventOf(void* event) { return static_cast<cudaEvent_t>(event); }

const char* memory(uint64_t* freeBytes, uint64_t* totalBytes) {
  size_t free = 0, total = 0;
  const cudaError_t status = cudaMemGetInfo(&free, &total);
  *freeBytes = free;
  *totalBytes = total;
  return said("asking for free device memory", status);
}

const char* hostAllocate(uint64_t bytes, void** out) {
  return said("allocating pinned memory", cudaHostAlloc(out, bytes, cudaHostAllocPortable));
}

const char* hostRelease(void* memory) { return said("releasing pinned memory", cudaFreeHost(memory)); }

const char* hostRegister(void* memory, uint64_t bytes) {
  return said("pinning memory", cudaHostRegister(memory, bytes, cudaHostRegisterPortable));
}

const char* hostUnregister(void* memory) { return said("unpinning memory", cudaHostUnregister(memory)); }

const char* fill(void* memory, uint32_t byte, uint64_t bytes, void* stream) {
  return said("filling memory", cudaMemsetAsync(memory, int(byte), bytes, streamOf(stream)));
}

const char* createEvent(void** out) {
  return said("making an event", cudaEventCreateWithFlags(reinterpret_cast<cudaEvent_t*>(out), 0));
}

const char* destroyEvent(void* event) { return said("ending an event", cudaEventDestroy(eventOf(event))); }

const char* record(void* event, void* stream) {
  return said("recording an event", cudaEventRecord(eventOf(event), streamOf(stream)));
}

const char* streamWait(void* stream, void* event) {
  return said("waiting for an event", cudaStreamWaitEvent(streamOf(stream), eventOf(event), 0));
}

const char* query(void* event, int* done) {
  const cudaError_t status = cudaEventQuery(eventOf(event));
  *done = status == cudaSuccess;
  return status == cudaErrorNotReady ? nullptr : said("asking an event", status);
}

const char* elapsed(void* from, void* to, float* milliseconds) {
  return said("timing events", cudaEventElapsedTime(milliseconds, eventOf(from), eventOf(to)));
}

// Thread-local: what other ranks' threads do meanwhile does not matter.
const char* beginCapture(void* stream) {
  return said("beginning a capture",
              cudaStreamBeginCapture(streamOf(stream), cudaStreamCaptureModeThreadLocal));
}

const char* endCapture(void* stream, void** graph) {
  cudaGraph_t kept = nullptr;
  cudaError_t status = cudaStreamEndCapture(streamOf(stream), &kept);
  if (status == cudaSuccess)
    status = cudaGraphInstantiate(reinterpret_cast<cudaGraphExec_t*>(graph), kept, 0);
  if (kept != nullptr) cudaGraphDestroy(kept);
  return said("ending a capture", status);
}

const char* dropCapture(void* stream) {
  cudaStreamCaptureStatus capturing = cudaStreamCaptureStatusNone;
  cudaGraph_t kept = nullptr;
  if (cudaStreamIsCapturing(streamOf(stream), &capturing) != cudaSuccess ||
      capturing != cudaStreamCaptureStatusNone)
    cudaStreamEndCapture(streamOf(stream), &kept);
  if (kept != nullptr) cudaGraphDestroy(kept);
  cudaGetLastError();
  return nullptr;
}

const char* launchGraph(void* graph, void* stream) {
  return said("launching a graph", cudaGraphLaunch(static_cast<cudaGraphExec_t>(graph), streamOf(stream)));
}

const char* destroyGraph(void* graph) {
  return said("ending a graph", cudaGraphExecDestroy(static_cast<cudaGraphExec_t>(graph)));
}

const char* canAccessPeer(uint32_t device, uint32_t peer, int* can) {
  return said("asking for peer access", cudaDeviceCanAccessPeer(can, int(device), int(peer)));
}

const char* enablePeer(uint32_t peer) {
  const cudaError_t status = cudaDeviceEnablePeerAccess(int(peer), 0);
  if (status != cudaErrorPeerAccessAlreadyEnabled) return said("enabling peer access", status);
  cudaGetLastError();
  return nullptr;
}

}  // namespace
}  // namespace aegis::cuda
