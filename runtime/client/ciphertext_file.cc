#include "client/ciphertext_file.h"

#include <sodium.h>

#include <algorithm>
#include <set>

#include "support/error.h"

namespace aegis {
namespace {

const char* kindName(CiphertextKind kind) {
  return kind == CiphertextKind::kRequest ? "request" : "response";
}

// Appends fixed-width little-endian fields, so that no two different interfaces give the same text.
class FieldText {
 public:
  void add(uint64_t value) { text_.append(reinterpret_cast<const char*>(&value), sizeof value); }
  void add(double value) { text_.append(reinterpret_cast<const char*>(&value), sizeof value); }
  void add(std::string_view value) {
    add(uint64_t(value.size()));
    text_.append(value);
  }
  const std::string& text() const { return text_; }

 private:
  std::string text_;
};

std::string checkedKeyId(const SafeTensors& file, const ClientParameters& parameters) {
  checkMetadata(file, "aegis-ciphertext", parameters);
  return keyIdOf(file);
}

}  // namespace

const PortVector& portsOf(const plan::Plan& plan, CiphertextKind kind) {
  return kind == CiphertextKind::kRequest ? *plan.inputs() : *plan.outputs();
}

Shape ciphertextShape(const plan::Port& port, const ClientParameters& parameters) {
  return {port.elements(), 2, uint64_t(port.level()) + 1, parameters.degree()};
}

uint64_t ciphertextWords(const plan::Port& port, const ClientParameters& parameters) {
  return uint64_t(port.elements()) * 2 * (uint64_t(port.level()) + 1) * parameters.degree();
}

std::string interfaceHash(const plan::Plan& plan) {
  FieldText fields;
  for (const PortVector* ports : {plan.inputs(), plan.outputs()}) {
    fields.add(uint64_t(ports->size()));
    for (const plan::Port* port : *ports) {
      fields.add(port->name()->string_view());
      fields.add(uint64_t(port->shape()->size()));
      for (uint32_t size : *port->shape()) fields.add(uint64_t(size));
      fields.add(uint64_t(port->elements()));
      fields.add(uint64_t(port->period()));
      fields.add(uint64_t(port->level()));
      fields.add(port->scale());
      fields.add(port->factor());
      for (uint32_t table : {port->features(), port->tokens()}) {
        const auto& values = *plan.tables()->Get(table)->values();
        fields.add(uint64_t(values.size()));
        for (int32_t value : values) fields.add(uint64_t(int64_t(value)));
      }
    }
  }
  return sha256Hex(fields.text().data(), fields.text().size());
}

CiphertextReader::CiphertextReader(const std::string& path, const plan::Plan& plan,
                                   const ClientParameters& parameters, CiphertextKind kind)
    : file_(SafeTensors::open(path)), parameters_(parameters), keyId_(checkedKeyId(file_, parameters)) {
  if (file_.meta("kind") != kindName(kind))
    fail("R303", path + " is not a " + kindName(kind),
         kind == CiphertextKind::kRequest ? "make one with aegis encrypt" : "responses come from aegis run");
  if (file_.meta("sourceHash") != plan.source_hash()->string_view())
    fail("R303", path + " was made for another model than the plan's");
  if (file_.meta("interfaceHash") != interfaceHash(plan))
    fail("R303", path + " was made for a plan with other inputs, outputs or layouts",
         "encrypt again with the plan that the server runs");
  const PortVector& ports = portsOf(plan, kind);
  for (const plan::Port* port : ports)
    file_.require(port->name()->str(), Dtype::kU64, ciphertextShape(*port, parameters));
  if (file_.tensors().size() != ports.size())
    fail("R303", path + " has tensors that are no port of the plan");
}

void CiphertextReader::readElement(const plan::Port& port, uint32_t element, uint64_t* out) const {
  const TensorInfo& tensor = *file_.find(port.name()->str());
  const size_t n = parameters_.degree(), limbs = size_t(port.level()) + 1,
               bytes = 2 * limbs * n * sizeof(uint64_t);
  file_.read(tensor, element * bytes, out, bytes);
  for (size_t row = 0; row < 2 * limbs; row++)
    if (!isCanonicalRow(out + row * n, n, parameters_.primes[row % limbs]))
      fail("R302", "ciphertext " + std::to_string(element) + " of \"" + port.name()->str() + "\" in "
                       + file_.name() + " has a residue that is not below its prime");
}

void CiphertextReader::read(const plan::Port& port, ThreadPool& pool, uint64_t* out) const {
  const size_t words = 2 * (size_t(port.level()) + 1) * parameters_.degree();
  pool.parallelFor(port.elements(), 1, [&](size_t begin, size_t end) {
    for (size_t i = begin; i < end; i++) readElement(port, uint32_t(i), out + i * words);
  });
}

std::vector<const plan::Port*> portsByName(const plan::Plan& plan, CiphertextKind kind) {
  const PortVector& ports = portsOf(plan, kind);
  std::vector<const plan::Port*> sorted(ports.begin(), ports.end());
  std::sort(sorted.begin(), sorted.end(),
            [](const plan::Port* a, const plan::Port* b) { return a->name()->str() < b->name()->str(); });
  return sorted;
}

SafeTensorsWriter stageCiphertexts(const std::string& path, const plan::Plan& plan,
                                   const ClientParameters& parameters, const std::string& keyId,
                                   CiphertextKind kind) {
  auto metadata = fileMetadata("aegis-ciphertext", parameters, keyId);
  metadata["kind"] = kindName(kind);
  metadata["model"] = plan.model_name()->str();
  metadata["sourceHash"] = plan.source_hash()->str();
  metadata["interfaceHash"] = interfaceHash(plan);
  std::vector<TensorSpec> specs;
  std::set<std::string> names = {"__metadata__"};
  for (const plan::Port* port : portsOf(plan, kind)) {
    if (!names.insert(port->name()->str()).second)
      fail("R321", "the plan has two ports named \"" + port->name()->str() + "\", or one of a reserved name");
    specs.push_back({port->name()->str(), Dtype::kU64, ciphertextShape(*port, parameters)});
  }
  return SafeTensorsWriter(path, FileMode::kPublic, metadata, specs);
}

std::string writeResponse(const std::string& path, const plan::Plan& plan, const ClientParameters& parameters,
                          const std::string& keyId, const std::vector<const uint64_t*>& outputs) {
  const PortVector& ports = portsOf(plan, CiphertextKind::kResponse);
  AEGIS_INVARIANT(outputs.size() == ports.size());
  crypto_hash_sha256_state state;
  crypto_hash_sha256_init(&state);
  for (uint32_t i = 0; i < ports.size(); i++)
    crypto_hash_sha256_update(&state, reinterpret_cast<const uint8_t*>(outputs[i]),
                              ciphertextWords(*ports[i], parameters) * sizeof(uint64_t));
  uint8_t hash[crypto_hash_sha256_BYTES];
  crypto_hash_sha256_final(&state, hash);

  SafeTensorsWriter writer = stageCiphertexts(path, plan, parameters, keyId, CiphertextKind::kResponse);
  for (const plan::Port* port : portsByName(plan, CiphertextKind::kResponse)) {
    const auto index = uint32_t(std::find(ports.begin(), ports.end(), port) - ports.begin());
    writer.write(port->name()->str(), outputs[index], ciphertextWords(*port, parameters) * sizeof(uint64_t));
  }
  writer.commit();
  return toHex(hash, sizeof hash);
}

}  // namespace aegis
