// Pieces of plans made without the compiler.
#pragma once

#include <memory>
#include <numeric>
#include <utility>
#include <vector>

#include "plan/plan_generated.h"

namespace aegis::test {

using Strides = std::vector<int64_t>;
using Limbs = std::vector<uint16_t>;

inline std::unique_ptr<plan::ViewT> view(uint32_t buffer, uint64_t offset, Strides strides = {},
                                  int64_t component = 0, Strides loops = {}, int64_t limbStride = 1) {
  auto v = std::make_unique<plan::ViewT>();
  v->buffer = buffer;
  v->offset = offset;
  v->strides = std::move(strides);
  v->component_stride = component;
  v->limb_stride = limbStride;
  v->loop_strides = std::move(loops);
  return v;
}

using Command = std::unique_ptr<plan::CommandT>;

inline Command command(plan::Opcode op, Limbs limbs, std::vector<uint32_t> dims,
                       std::unique_ptr<plan::ViewT> out, std::unique_ptr<plan::ViewT> a = nullptr,
                       std::unique_ptr<plan::ViewT> b = nullptr) {
  auto c = std::make_unique<plan::CommandT>();
  c->op = op;
  c->limbs = std::move(limbs);
  c->dims = std::move(dims);
  c->out = std::move(out);
  c->a = std::move(a);
  c->b = std::move(b);
  return c;
}

inline Limbs range(uint16_t first, uint16_t count) {
  Limbs limbs(count);
  std::iota(limbs.begin(), limbs.end(), first);
  return limbs;
}

// A function with these argument and local buffers (in rows), and room for callees' frames.
inline std::unique_ptr<plan::FunctionT> function(const char* name, const std::vector<uint64_t>& arguments,
                                                 const std::vector<uint64_t>& locals, uint64_t calleeRows) {
  auto f = std::make_unique<plan::FunctionT>();
  f->name = name;
  for (const uint64_t rows : arguments) {
    f->buffers.push_back(std::make_unique<plan::BufferT>());
    f->buffers.back()->argument = true;
    f->buffers.back()->rows = rows;
  }
  uint64_t offset = 0;
  for (const uint64_t rows : locals) {
    f->buffers.push_back(std::make_unique<plan::BufferT>());
    f->buffers.back()->offset = offset;
    f->buffers.back()->rows = rows;
    offset += rows;
  }
  f->frame_rows = offset + calleeRows;
  return f;
}

}  // namespace aegis::test
