// Ranks on GPUs that exchange rows by NCCL, on streams of their own: starting and waiting only put work into
// streams, so communication goes on beside computation. A base transport says which ranks this process has,
// and carries signs of life, failures and results: local, mpi, or a folder.
#pragma once

#include <memory>
#include <string>

#include "hal/channel.h"

namespace aegis {

// For ranks on CudaDevices. R406: there is no NCCL that will do. Where NCCL cannot connect the devices, or
// adds wrongly on them, all ranks use the base transport instead, with a warning, or are refused with R406 if
// it moves no rows.
std::shared_ptr<Transport> makeNcclTransport(const TransportJob& job, std::shared_ptr<Transport> base);

// "NCCL 2.30.7 (libnccl.so.2)"; "" if there is none that will do, `why` says why.
std::string ncclLibrary(std::string* why = nullptr);

}  // namespace aegis
