#include "io/safetensors_header.h"

#include <nlohmann/json.hpp>

#include "support/error.h"

namespace aegis {
namespace {

using json = nlohmann::json;

constexpr size_t kMaxRank = 16;

// Events of the parser instead of a document: the header's form is fixed, so depth and memory stay bounded by
// it (64 MiB of "[" would make a document of gigabytes), and a repeated key is seen instead of overwritten.
class HeaderHandler final : public nlohmann::json_sax<json> {
 public:
  explicit HeaderHandler(const std::string& fileName) : fileName_(fileName) {}
  SafeTensorsHeader header;

  bool null() override { return refuse("null"); }
  bool boolean(bool) override { return refuse("a boolean"); }
  bool number_integer(number_integer_t) override { return refuse("a negative number"); }
  bool number_float(number_float_t, const string_t&) override { return refuse("a fraction"); }
  bool binary(binary_t&) override { return refuse("binary"); }

  bool number_unsigned(number_unsigned_t value) override {
    if (place_ == Place::kShape && entry_->shape.size() < kMaxRank) {
      entry_->shape.push_back(value);
      return true;
    }
    if (place_ != Place::kOffsets || offsets_ >= 2) return refuse("a number");
    (offsets_++ == 0 ? entry_->begin : entry_->end) = value;
    return true;
  }

  bool string(string_t& value) override {
    if (place_ == Place::kMetadata) {
      header.metadata[key_] = value;
      return true;
    }
    if (place_ != Place::kEntry || key_ != "dtype") return refuse("a string");
    entry_->dtype = value;
    return true;
  }

  bool key(string_t& value) override {
    key_ = value;
    if (place_ == Place::kTop) {
      if (value == "__metadata__") return once(sawMetadata_);
      const auto [at, fresh] = header.tensors.try_emplace(value);
      if (!fresh) return repeated();
      entry_ = &at->second;
      sawDtype_ = sawShape_ = sawOffsets_ = false;
      return true;
    }
    if (place_ == Place::kMetadata) return header.metadata.count(value) == 0 || repeated();
    if (value == "dtype") return once(sawDtype_);
    if (value == "shape") return once(sawShape_);
    if (value == "data_offsets") return once(sawOffsets_);
    return refuse("an unknown field");
  }

  bool start_object(size_t) override {
    if (place_ == Place::kOutside) return enter(Place::kTop);
    if (place_ != Place::kTop) return refuse("an object");
    return enter(key_ == "__metadata__" ? Place::kMetadata : Place::kEntry);
  }

  bool end_object() override {
    if (place_ == Place::kEntry && !(sawDtype_ && sawShape_ && sawOffsets_))
      return refuse("an incomplete tensor");
    return enter(place_ == Place::kTop ? Place::kOutside : Place::kTop);
  }

  bool start_array(size_t) override {
    if (place_ != Place::kEntry || key_ == "dtype") return refuse("an array");
    offsets_ = 0;
    return enter(key_ == "shape" ? Place::kShape : Place::kOffsets);
  }

  bool end_array() override {
    if (place_ == Place::kOffsets && offsets_ != 2) return refuse("data_offsets without two numbers");
    return enter(Place::kEntry);
  }

  bool parse_error(size_t position, const std::string&, const nlohmann::detail::exception&) override {
    fail("R104", "the header of " + fileName_ + " is not JSON at byte " + std::to_string(position));
  }

 private:
  enum class Place { kOutside, kTop, kMetadata, kEntry, kShape, kOffsets };

  bool enter(Place place) {
    place_ = place;
    return true;
  }
  bool once(bool& seen) {
    if (seen) return repeated();
    return seen = true;
  }
  bool repeated() {
    fail("R108", "name \"" + key_.substr(0, 80) + "\" occurs twice in the header of " + fileName_);
  }
  bool refuse(const char* what) {
    fail("R104", std::string("the header of ") + fileName_ + " has " + what + " at \"" + key_.substr(0, 80)
                     + "\" where safetensors has none");
  }

  const std::string& fileName_;
  Place place_ = Place::kOutside;
  std::string key_;
  SafeTensorsHeader::Entry* entry_ = nullptr;
  int offsets_ = 0;
  bool sawMetadata_ = false, sawDtype_ = false, sawShape_ = false, sawOffsets_ = false;
};

}  // namespace

SafeTensorsHeader parseSafeTensorsHeader(const std::string& text, const std::string& fileName) {
  HeaderHandler handler(fileName);
  if (!json::sax_parse(text.begin(), text.end(), &handler))
    fail("R104", "the header of " + fileName + " is not JSON");
  return std::move(handler.header);
}

}  // namespace aegis
