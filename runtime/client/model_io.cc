// Requests and responses: tensors of the model <-> ciphertext files.
#include <algorithm>
#include <cmath>
#include <complex>
#include <cstdio>

#include "client/cipher.h"
#include "client/flood.h"
#include "support/error.h"

namespace aegis {
namespace {

// Where slot u + period t of an element reads its value; negative: zero. The token table has a
// part for each token block; the elements of a block follow each other.
struct SlotIndex {
  const flatbuffers::Vector<int32_t>& features;
  const flatbuffers::Vector<int32_t>& tokens;
  uint32_t period, groups, blockElements;

  SlotIndex(const plan::Plan& plan, const plan::Port& port)
      : features(*plan.tables()->Get(port.features())->values()),
        tokens(*plan.tables()->Get(port.tokens())->values()),
        period(port.period()),
        groups((1u << (plan.parameters()->log_n() - 1)) / period),
        blockElements(port.elements() / (tokens.size() / groups)) {}

  int64_t operator()(uint32_t element, uint32_t slot) const {
    const int32_t feature = features.Get(element * period + slot % period),
                  token = tokens.Get(element / blockElements * groups + slot / period);
    return feature < 0 || token < 0 ? -1 : int64_t(feature) + token;
  }
};

size_t flatSize(const plan::Port& port) {
  size_t size = 1;
  for (uint32_t extent : *port.shape()) size *= extent;
  return size;
}

std::string print(double value) {
  char text[32];
  std::snprintf(text, sizeof text, "%.6g", value);
  return text;
}

const std::vector<double>& inputOf(const plan::Port& port, const ClearTensors& inputs) {
  const std::string name = port.name()->str();
  const auto found = inputs.find(name);
  if (found == inputs.end()) fail("R305", "input \"" + name + "\" of the model is missing");
  const size_t expected = flatSize(port);
  if (found->second.size() != expected)
    fail("R305", "input \"" + name + "\" has " + std::to_string(found->second.size())
                     + " values but the model takes " + std::to_string(expected));
  return found->second;
}

// At a non-finite value: error. Outside of the calibrated range: a warning, if there is such a value.
void checkRange(const plan::Port& port, const std::vector<double>& values, std::vector<Warning>& warnings) {
  const std::string name = port.name()->str();
  double largest = 0;
  for (size_t i = 0; i < values.size(); i++) {
    if (!std::isfinite(values[i]))
      fail("R305",
           "input \"" + name + "\" has the value " + print(values[i]) + " at index " + std::to_string(i));
    largest = std::max(largest, std::fabs(values[i]));
  }
  if (port.bound() > 0 && largest > port.bound())
    warnings.push_back({"R306", "input \"" + name + "\" reaches " + print(largest)
                                    + " but the model was calibrated for -" + print(port.bound()) + ".."
                                    + print(port.bound())});
}

}  // namespace

std::vector<double> gatherSlots(const plan::Plan& plan, const plan::Port& port,
                                const std::vector<double>& values, uint32_t element) {
  const SlotIndex index(plan, port);
  std::vector<double> slots(size_t(1) << (plan.parameters()->log_n() - 1));
  for (uint32_t slot = 0; slot < slots.size(); slot++) {
    const int64_t at = index(element, slot);
    if (at < 0) continue;
    AEGIS_INVARIANT(uint64_t(at) < values.size());
    slots[slot] = values[size_t(at)] / port.factor();
  }
  return slots;
}

std::vector<Warning> encryptRequest(CryptoContext& context, const plan::Plan& plan,
                                    const ClearTensors& inputs, const EncryptOptions& options) {
  std::vector<Warning> warnings;
  const PortVector& ports = portsOf(plan, CiphertextKind::kRequest);
  uint64_t total = 0, done = 0;
  for (const plan::Port* port : ports) {
    checkRange(*port, inputOf(*port, inputs), warnings);
    total += port->elements();
  }
  for (const auto& input : inputs) {
    const auto matches = [&](const plan::Port* port) { return port->name()->string_view() == input.first; };
    if (std::none_of(ports.begin(), ports.end(), matches))
      fail("R305", "the model has no input \"" + input.first + "\"");
  }
  if (!warnings.empty() && !options.allowOutOfRange)
    fail(warnings[0].code.c_str(), warnings[0].message,
         "calibrate with samples that cover such inputs and compile again; the result would be unreliable");

  Encryptor encryptor(context, openEncryptionKey(options.key, context.parameters), Randomness::system());
  SafeTensorsWriter writer =
      stageCiphertexts(options.out, plan, context.parameters, encryptor.keyId(), CiphertextKind::kRequest);
  for (const plan::Port* port : portsByName(plan, CiphertextKind::kRequest)) {
    const std::string name = port->name()->str();
    const std::vector<uint16_t> limbs = context.levelLimbs(port->level());
    SecretVector<uint64_t> plain(limbs.size() * context.degree());
    std::vector<uint64_t> cipher(2 * plain.size());
    for (uint32_t element = 0; element < port->elements(); element++) {
      options.progress.step("encrypt", done++, total);
      const std::vector<double> slots = gatherSlots(plan, *port, inputs.at(name), element);
      context.encoder.encode(slots, port->scale(), limbs, context.degree(), plain.data());
      encryptor.encrypt(plain.data(), port->level(), cipher.data());
      writer.write(name, cipher.data(), cipher.size() * sizeof(uint64_t));
    }
  }
  options.progress.step("encrypt", total, total);
  writer.commit();
  return warnings;
}

namespace {

void decryptPort(CryptoContext& context, const plan::Plan& plan, const plan::Port& port,
                 const CiphertextReader& response, const Decryptor& decryptor, DecryptResult& result) {
  const std::string name = port.name()->str();
  const SlotIndex index(plan, port);
  const std::vector<uint16_t> limbs = context.levelLimbs(port.level());
  if (flatSize(port) / (context.degree() / 2) > port.elements())  // before memory is taken for it
    fail("R321", "output \"" + name + "\" of the plan has more values than slots");
  std::vector<uint64_t> cipher(2 * limbs.size() * context.degree());
  SecretVector<uint64_t> plain(limbs.size() * context.degree());
  std::vector<double> values(flatSize(port));
  std::vector<bool> seen(values.size(), false);
  double imaginary = 0, largest = 0;
  for (uint32_t element = 0; element < port.elements(); element++) {
    response.readElement(port, element, cipher.data());
    decryptor.decrypt(cipher.data(), port.level(), plain.data());
    const std::vector<std::complex<double>> slots = context.encoder.decode(plain.data(), limbs, port.scale());
    for (uint32_t slot = 0; slot < slots.size(); slot++) {
      const int64_t at = index(element, slot);
      if (at < 0 || seen[size_t(at)]) continue;  // a value that lies in several slots is read from the first
      seen[size_t(at)] = true;
      values[size_t(at)] = slots[slot].real() * port.factor();
      largest = std::max(largest, std::fabs(values[size_t(at)]));
      imaginary = std::max(imaginary, std::fabs(slots[slot].imag() * port.factor()));
    }
  }
  if (std::find(seen.begin(), seen.end(), false) != seen.end())
    fail("R321", "output \"" + name + "\" of the plan has values that lie in no slot");
  if (port.predicted_error() > 0 && !(imaginary <= port.predicted_error()))
    result.warnings.push_back(
        {"R322", "output \"" + name + "\" has noise of " + print(imaginary) + ", above the predicted error "
                     + print(port.predicted_error())
                     + ": a value inside left its calibrated range, or the keys do not match"});
  if (port.bound() > 0 && !(largest <= port.bound()))
    result.warnings.push_back({"R306", "output \"" + name + "\" reaches " + print(largest)
                                           + " but the model was calibrated for -" + print(port.bound())
                                           + ".." + print(port.bound())});
  result.imaginary[name] = imaginary;
  result.outputs[name] = std::move(values);
}

}  // namespace

const char* const kKeepHelp = "keep the result to yourself, or show what it means: a class, not its scores";

// R323: an output's error is not known.
std::map<std::string, double> floodSigmas(const plan::Plan& plan, uint64_t queries) {
  const PortVector& ports = portsOf(plan, CiphertextKind::kResponse);
  uint64_t values = 0;
  for (const plan::Port* port : ports) values += flatSize(*port);
  std::map<std::string, double> sigmas;
  for (const plan::Port* port : ports) {
    const std::string name = port->name()->str();
    if (!(port->predicted_error() > 0))
      fail("R323", "output \"" + name + "\" cannot be shared: the plan does not say how large its errors are",
           kKeepHelp);
    sigmas[name] = floodSigma(port->predicted_error(), values, queries);
  }
  return sigmas;
}

// R323: the noise would leave less than a bit of an output's range, or of this result where it is not known.
void flood(const plan::Plan& plan, DecryptResult& result) {
  Randomness random = Randomness::system();
  for (const plan::Port* port : portsOf(plan, CiphertextKind::kResponse)) {
    const std::string name = port->name()->str();
    const double sigma = result.floodSigma.at(name);
    std::vector<double>& values = result.outputs.at(name);
    double range = port->bound();
    for (size_t i = 0; i < values.size() && !(port->bound() > 0); i++)
      range = std::max(range, std::fabs(values[i]));
    if (!(4 * sigma <= range))
      fail("R323",
           "output \"" + name + "\" cannot be shared: it reaches " + print(range) + ", and noise of " +
               print(sigma) + " would have to hide its errors of " + print(port->predicted_error()),
           kKeepHelp);
    for (double& value : values) value = flooded(value, sigma, random);
  }
}

DecryptResult decryptResponse(CryptoContext& context, const plan::Plan& plan, const DecryptOptions& options) {
  std::map<std::string, double> sigmas;
  if (options.shareQueries > 0) sigmas = floodSigmas(plan, options.shareQueries);
  const CiphertextReader response(options.in, plan, context.parameters, CiphertextKind::kResponse);
  const SafeTensors keyFile = SafeTensors::open(options.key);
  const Decryptor decryptor(context, readSecretKey(keyFile, context.parameters));
  if (response.keyId() != decryptor.keyId())
    fail("R311", options.in + " was encrypted with other keys than " + options.key);
  DecryptResult result;
  const PortVector& ports = portsOf(plan, CiphertextKind::kResponse);
  for (uint32_t i = 0; i < ports.size(); i++) {
    options.progress.step("decrypt", i, ports.size());
    decryptPort(context, plan, *ports[i], response, decryptor, result);
  }
  result.floodSigma = std::move(sigmas);
  if (options.shareQueries > 0) flood(plan, result);
  options.progress.step("decrypt", ports.size(), ports.size());
  return result;
}

}  // namespace aegis
