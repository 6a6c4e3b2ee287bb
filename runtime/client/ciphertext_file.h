// Requests and responses: all ciphertexts of a plan's input or output ports in one safetensors file, one U64
// tensor [elements, 2, limbs, N] for each port, named after it.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "client/context.h"
#include "client/key_files.h"
#include "io/safetensors.h"

namespace aegis {

enum class CiphertextKind { kRequest, kResponse };

using PortVector = flatbuffers::Vector<flatbuffers::Offset<plan::Port>>;

const PortVector& portsOf(const plan::Plan& plan, CiphertextKind kind);
Shape ciphertextShape(const plan::Port& port, const ClientParameters& parameters);
uint64_t ciphertextWords(const plan::Port& port, const ClientParameters& parameters);

// SHA-256 over everything in the ports that says what a ciphertext means: client and server agree on a plan's
// interface, whatever else (placement, devices) differs between their plans.
std::string interfaceHash(const plan::Plan& plan);

class CiphertextReader {
 public:
  // Errors of SafeTensors::open and checkMetadata, R303 for another model, interface, direction or set of
  // ports.
  CiphertextReader(const std::string& path, const plan::Plan& plan, const ClientParameters& parameters,
                   CiphertextKind kind);
  const std::string& keyId() const { return keyId_; }
  // [element][component][limb][N] of the port, R302 unless every residue is below its prime.
  void read(const plan::Port& port, ThreadPool& pool, uint64_t* out) const;
  // One element of it.
  void readElement(const plan::Port& port, uint32_t element, uint64_t* out) const;

 private:
  SafeTensors file_;
  const ClientParameters& parameters_;
  std::string keyId_;
};

// The ports of one file in the order in which their tensors must be written.
std::vector<const plan::Port*> portsByName(const plan::Plan& plan, CiphertextKind kind);
SafeTensorsWriter stageCiphertexts(const std::string& path, const plan::Plan& plan,
                                   const ClientParameters& parameters, const std::string& keyId,
                                   CiphertextKind kind);

// Writes the response, `outputs[i]` for Plan.outputs[i], and gives outputSha256: SHA-256 over the residues of
// all outputs in port order, little-endian words.
std::string writeResponse(const std::string& path, const plan::Plan& plan, const ClientParameters& parameters,
                          const std::string& keyId, const std::vector<const uint64_t*>& outputs);

}  // namespace aegis
