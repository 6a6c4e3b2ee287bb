#include "hal/device.h"

#include "plan/program.h"

namespace aegis {

KernelCall KernelCall::part(uint32_t dim, uint32_t begin, uint32_t end) const {
  KernelCall part = *this;
  part.launch.dims[dim] = end - begin;
  for (Rows* rows : {&part.out, &part.a, &part.b})
    if (rows->base != nullptr) rows->base += ptrdiff_t(begin) * rows->strides[dim];
  if (part.plain.base != nullptr) part.plain.base += ptrdiff_t(begin) * part.plain.strides[dim];
  if (dim == command->turnDim) part.turn += begin;
  part.work = work / launch.dims[dim] * (end - begin);
  return part;
}

}  // namespace aegis
