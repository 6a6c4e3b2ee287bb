#include "client/parameters.h"

#include <algorithm>
#include <cmath>
#include <set>

#include "ckks/ring.h"
#include "support/error.h"

namespace aegis {
namespace {

// Largest log2(QP) for 128 bits, uniform ternary secret, sigma 3.19, classical attacks: Security Guidelines
// for Implementing Homomorphic Encryption (2024), table 5.2. src/target/security.ts has the same numbers.
double maxLogQP(uint32_t logN) {
  constexpr double bound[] = {26, 53, 106, 214, 430, 868, 1747, 3523};
  return logN >= 10 && logN <= 17 ? bound[logN - 10] : 0;
}

[[noreturn]] void inconsistent(const std::string& what) {
  fail("R320", "the plan's parameters are inconsistent: " + what);
}

KeyClassShape readKeyClass(const plan::KeyClass& from, const ClientParameters& p) {
  KeyClassShape shape;
  shape.name = from.name()->str();
  shape.level = from.level();
  shape.specials = from.specials();
  if (shape.level > p.maxLevel || shape.specials == 0 || shape.specials > p.specials)
    inconsistent("key class \"" + shape.name + "\" has level " + std::to_string(shape.level) + " and "
                 + std::to_string(shape.specials) + " special primes");
  uint32_t next = 0;
  for (const plan::DigitRange* digit : *from.digits()) {
    if (digit->first() != next || digit->count() == 0)
      inconsistent("digits of key class \"" + shape.name + "\"");
    shape.digits.push_back({digit->first(), digit->count()});
    next += digit->count();
  }
  if (next != shape.level + 1)
    inconsistent("digits of key class \"" + shape.name + "\" do not cover its limbs");
  for (uint32_t i = 0; i < shape.specials; i++) shape.limbs.push_back(uint16_t(p.maxLevel + 1 + i));
  for (uint32_t i = 0; i <= shape.level; i++) shape.limbs.push_back(uint16_t(i));
  return shape;
}

KeySpec readKey(const plan::Key& from, const ClientParameters& p) {
  KeySpec key{from.kind(), from.kind() == plan::KeyKind_Galois ? from.galois() : 0, from.key_class(), {}};
  if (key.kind > plan::KeyKind_MAX) inconsistent("unknown kind of key");
  if (key.keyClass >= p.keyClasses.size()) inconsistent("key of class " + std::to_string(key.keyClass));
  if (key.kind == plan::KeyKind_Galois && (key.galois % 2 == 0 || key.galois >= 2 * p.degree()))
    inconsistent("Galois element " + std::to_string(key.galois));
  if (from.level() > p.keyClasses[key.keyClass].level)
    inconsistent("key at level " + std::to_string(from.level()) + " above its class");
  key.shape = p.keyClasses[key.keyClass].cutAt(from.level());
  return key;
}

std::string hashOf(const ClientParameters& p) {
  std::string text = "aegis-parameters 1\nlogN";
  const auto add = [&](uint64_t value) { text.append(" ").append(std::to_string(value)); };
  add(p.logN);
  text += "\nprimes";
  for (uint64_t prime : p.primes) add(prime);
  text += "\nmaxLevel";
  add(p.maxLevel);
  text += "\nephemeralWeight";
  add(p.ephemeralWeight);
  for (const KeyClassShape& c : p.keyClasses) {
    text += "\nclass";
    add(c.level);
    add(c.specials);
    for (const auto& digit : c.digits) add(digit.count);
    text.append(" ").append(c.name);
  }
  return sha256Hex(text.data(), text.size());
}

void checkSecurity(const ClientParameters& p) {
  std::vector<uint16_t> all(p.primes.size());
  for (size_t i = 0; i < all.size(); i++) all[i] = uint16_t(i);
  const double bits = p.log2Primes(all);
  if (!p.insecure && bits > maxLogQP(p.logN))
    fail("R308", "the plan is not marked INSECURE, but log2(QP) = " + std::to_string(int(std::ceil(bits)))
                     + " at N = 2^" + std::to_string(p.logN) + " is above the 128-bit bound of "
                     + std::to_string(int(maxLogQP(p.logN))),
         "compile the model again; do not use this plan with real data");
  for (const KeySpec& key : p.keys) {
    if (key.kind != plan::KeyKind_ToSparse && key.kind != plan::KeyKind_ToDense) continue;
    if (p.ephemeralWeight > p.degree() / 2 || p.ephemeralWeight == 0
        || (!p.insecure && p.ephemeralWeight < kSecureEphemeralWeight))
      fail("R307", "the sparse secret has Hamming weight " + std::to_string(p.ephemeralWeight) + " but needs "
                       + std::to_string(kSecureEphemeralWeight));
    if (key.kind != plan::KeyKind_ToSparse) continue;
    const KeyClassShape& shape = key.shape;
    const double keyBits = p.log2Primes(shape.limbs);
    if (shape.name != "sparse" || shape.level != 0 || keyBits > kMaxSparseKeyBits)
      fail("R307", "the key to the sparse secret has class \"" + shape.name + "\" with a modulus of "
                       + std::to_string(int(std::ceil(keyBits))) + " bits; at most "
                       + std::to_string(int(kMaxSparseKeyBits)) + " bits at level 0 are safe");
  }
}

}  // namespace

KeyClassShape KeyClassShape::cutAt(uint32_t lower) const {
  KeyClassShape cut{name, lower, specials, {}, {}};
  for (const Digit& digit : digits)
    if (digit.first <= lower)
      cut.digits.push_back({digit.first, std::min(digit.count, lower + 1 - digit.first)});
  cut.limbs.assign(limbs.begin(), limbs.begin() + ptrdiff_t(rowOf(lower)) + 1);
  return cut;
}

std::string KeySpec::name(const std::vector<KeyClassShape>& classes) const {
  const std::string suffix = "." + classes[keyClass].name;
  switch (kind) {
    case plan::KeyKind_Relinearize: return "relinearize" + suffix;
    case plan::KeyKind_Galois: return "galois." + std::to_string(galois) + suffix;
    case plan::KeyKind_ToSparse: return "to-sparse" + suffix;
    case plan::KeyKind_ToDense: return "to-dense" + suffix;
  }
  inconsistent("unknown kind of key");
}

uint64_t KeySpec::nonce(uint32_t digit, uint32_t row) const {
  // Fields: row 16 bits, digit 12, class 12, galois 20, kind 4. The limits hold by kMaxLogN and fromPlan.
  return uint64_t(row) | uint64_t(digit) << 16 | uint64_t(keyClass) << 28 | uint64_t(galois) << 40
         | uint64_t(kind) << 60;
}

double ClientParameters::log2Primes(const std::vector<uint16_t>& limbs) const {
  double bits = 0;
  for (uint16_t limb : limbs) bits += std::log2(double(primes[limb]));
  return bits;
}

uint64_t ClientParameters::keyElements(const KeySpec& key) const {
  const KeyClassShape& shape = key.shape;
  return uint64_t(shape.digits.size()) * shape.limbs.size() * degree();
}

ClientParameters ClientParameters::fromPlan(const plan::Plan& plan) {
  const plan::Parameters& from = *plan.parameters();
  ClientParameters p;
  p.logN = from.log_n();
  p.primes.assign(from.primes()->begin(), from.primes()->end());
  p.maxLevel = from.max_level();
  p.specials = from.specials();
  p.ephemeralWeight = from.ephemeral_weight();
  p.insecure = from.insecure();
  if (p.logN < kMinLogN || p.logN > kMaxLogN) inconsistent("log N = " + std::to_string(p.logN));
  if (p.primes.size() != size_t(p.maxLevel) + 1 + p.specials || p.primes.size() > 4095)
    inconsistent(std::to_string(p.primes.size()) + " primes for max level " + std::to_string(p.maxLevel)
                 + " and " + std::to_string(p.specials) + " special primes");
  if (std::find(p.primes.begin(), p.primes.end(), 0) != p.primes.end()) inconsistent("a prime is 0");
  if (from.key_classes()->size() > 4095) inconsistent("too many key classes");
  std::set<std::string> names;
  for (const plan::KeyClass* keyClass : *from.key_classes()) {
    p.keyClasses.push_back(readKeyClass(*keyClass, p));
    if (!names.insert(p.keyClasses.back().name).second) inconsistent("two key classes of one name");
  }
  for (const plan::Key* key : *plan.keys()) p.keys.push_back(readKey(*key, p));
  checkSecurity(p);
  p.hash = hashOf(p);
  return p;
}

uint32_t inverseGalois(uint32_t galois, uint32_t logN) {
  const uint32_t mask = (uint32_t(2) << logN) - 1;
  uint32_t inverse = galois;  // Newton: g is its own inverse mod 8, each step doubles the bits
  for (int bits = 3; bits < 32; bits *= 2) inverse *= 2 - galois * inverse;
  return inverse & mask;
}

}  // namespace aegis
